<?php

namespace Oro\Bundle\PlatformBundle;

final class OroPlatformBundle
{
}
