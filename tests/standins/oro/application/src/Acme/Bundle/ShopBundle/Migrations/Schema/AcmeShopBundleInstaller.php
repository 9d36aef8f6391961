<?php

namespace Acme\Bundle\ShopBundle\Migrations\Schema;

final class AcmeShopBundleInstaller
{
    public function getMigrationVersion(): string
    {
        return 'v1_0';
    }

    /** @return string[] */
    public function queries(): array
    {
        return [
            "CREATE TABLE acme_order (id SERIAL PRIMARY KEY, text TEXT NOT NULL, written_at TIMESTAMP DEFAULT clock_timestamp())",
            "CREATE TABLE acme_attachment (id SERIAL PRIMARY KEY, filename VARCHAR(255) NOT NULL)",
        ];
    }
}
