<?php

namespace Oro\Bundle\PlatformBundle\Migrations\Schema;

final class OroPlatformBundleInstaller
{
    public function getMigrationVersion(): string
    {
        return 'v1_0';
    }

    /** @return string[] */
    public function queries(): array
    {
        return [
            "CREATE TABLE oro_migrations (id SERIAL PRIMARY KEY, bundle VARCHAR(250) NOT NULL, version VARCHAR(250) NOT NULL, loaded_at TIMESTAMP NOT NULL)",
            "CREATE TABLE oro_migrations_data (id SERIAL PRIMARY KEY, class_name VARCHAR(255) NOT NULL, version VARCHAR(255))",
            "CREATE TABLE oro_config_value (id SERIAL PRIMARY KEY, section VARCHAR(50), name VARCHAR(255), text_value TEXT)",
            "CREATE TABLE oro_cron_schedule (id SERIAL PRIMARY KEY, command VARCHAR(255) NOT NULL, definition VARCHAR(100))",
            "CREATE TABLE oro_entity_config_field (id SERIAL PRIMARY KEY, entity VARCHAR(255), field_name VARCHAR(255), type VARCHAR(60), state VARCHAR(30))",
            "CREATE TABLE oro_search_item (id SERIAL PRIMARY KEY, entity VARCHAR(255), record_id INT, title TEXT)",
        ];
    }
}
