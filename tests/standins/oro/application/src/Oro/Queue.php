<?php

namespace Oro;

/** The message queue in the database. */
final class Queue
{
    public function __construct(private Kernel $kernel)
    {
    }

    public function send(string $topic, array $body): void
    {
        $this->kernel->database()->insert('oro_message_queue', [
            'queue' => 'oro.default', 'topic' => $topic, 'body' => json_encode($body), 'priority' => 2,
        ]);
    }

    public function claim(string $consumer): ?array
    {
        $row = $this->kernel->database()->fetchAssociative(
            'UPDATE oro_message_queue SET consumer_id = ? WHERE id = (SELECT id FROM oro_message_queue'
            . ' WHERE consumer_id IS NULL ORDER BY priority, id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING *',
            [$consumer]
        );
        return $row ?: null;
    }

    /** Do the work of a message; the row says which release did it. */
    public function handle(array $message): void
    {
        usleep(1000 * (int) $this->kernel->env('ORO_MESSAGE_MS', '20'));
        $this->kernel->database()->transactional(function ($database) use ($message): void {
            $database->insert('acme_handled', [
                'message_id' => $message['id'], 'topic' => $message['topic'], 'version' => $this->kernel->version(),
            ]);
            $database->delete('oro_message_queue', ['id' => $message['id']]);
        });
    }

    public function cacheState(): string
    {
        return (string) $this->kernel->database()->fetchOne(
            "SELECT updated_at FROM oro_message_queue_state WHERE id = 'cache'"
        );
    }
}
