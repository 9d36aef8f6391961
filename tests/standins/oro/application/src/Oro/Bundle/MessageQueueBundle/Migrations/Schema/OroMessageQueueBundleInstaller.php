<?php

namespace Oro\Bundle\MessageQueueBundle\Migrations\Schema;

final class OroMessageQueueBundleInstaller
{
    public function getMigrationVersion(): string
    {
        return 'v1_2';
    }

    /** @return string[] */
    public function queries(): array
    {
        return [
            "CREATE TABLE oro_message_queue (id BIGSERIAL PRIMARY KEY, queue VARCHAR(255), topic VARCHAR(255), body TEXT, priority SMALLINT DEFAULT 2, delayed_until INT, consumer_id VARCHAR(255))",
            "CREATE TABLE oro_message_queue_state (id VARCHAR(15) PRIMARY KEY, updated_at TIMESTAMP)",
            "CREATE TABLE acme_handled (id SERIAL PRIMARY KEY, message_id BIGINT NOT NULL, topic VARCHAR(255), version VARCHAR(60), handled_at TIMESTAMP DEFAULT clock_timestamp())",
        ];
    }
}
