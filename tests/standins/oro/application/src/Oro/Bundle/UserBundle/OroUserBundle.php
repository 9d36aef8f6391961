<?php

namespace Oro\Bundle\UserBundle;

final class OroUserBundle
{
}
