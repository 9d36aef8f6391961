<?php

namespace Acme\Bundle\ShopBundle\Migrations\Data\ORM;

use Doctrine\DBAL\Connection;

final class LoadOrders
{
    public function load(Connection $database): void
    {
        $database->executeStatement("INSERT INTO acme_order(text) SELECT 'order ' || n FROM generate_series(1, 40) n");
    }
}
