<?php

namespace Acme\Bundle\ShopBundle;

final class AcmeShopBundle
{
}
