<?php

namespace Oro\Bundle\UserBundle\Migrations\Schema;

final class OroUserBundleInstaller
{
    public function getMigrationVersion(): string
    {
        return 'v1_9';
    }

    /** @return string[] */
    public function queries(): array
    {
        return [
            "CREATE TABLE oro_user (id SERIAL PRIMARY KEY, username VARCHAR(255) NOT NULL, email VARCHAR(255), password VARCHAR(255), title VARCHAR(100))",
            "INSERT INTO oro_entity_config_field (entity, field_name, type, state) VALUES ('User', 'title', 'string', 'Active')",
        ];
    }
}
