<?php

namespace Oro\Bundle\MessageQueueBundle;

final class OroMessageQueueBundle
{
}
