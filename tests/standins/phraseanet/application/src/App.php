<?php

namespace Dam;

use Doctrine\DBAL\Connection;
use Doctrine\DBAL\DriverManager;
use PhpAmqpLib\Channel\AMQPChannel;
use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Message\AMQPMessage;
use RuntimeException;
use Symfony\Component\Yaml\Yaml;

/** One release: an ApplicationBox, the DataBoxes that it names, documents, an index, and a queue for subdefinitions. */
final class App
{
    public const QUEUE = 'subdefCreation';
    private array $connections = [];
    private ?AMQPChannel $channel = null;

    public function __construct(public readonly string $root)
    {
    }

    public function version(): string
    {
        return trim(file_get_contents("$this->root/VERSION"));
    }

    // --- configuration: what counts is the compiled one

    public function configurationFile(): string
    {
        return "$this->root/config/configuration.yml";
    }

    public function compile(): void
    {
        $made = var_export(Yaml::parseFile($this->configurationFile()), true);
        $new = "$this->root/config/configuration-compiled." . getmypid();
        file_put_contents($new, "<?php return $made;\n");
        rename($new, "$this->root/config/configuration-compiled.php");
    }

    public function setting(string $path, mixed $default = null): mixed
    {
        $found = require "$this->root/config/configuration-compiled.php";
        foreach (explode('.', $path) as $name) {
            if (!is_array($found) || !array_key_exists($name, $found)) {
                return $default;
            }
            $found = $found[$name];
        }
        return $found;
    }

    // --- databases

    public function connection(string $name): Connection
    {
        return $this->connections[$name] ??= DriverManager::getConnection([
            'driver' => 'pdo_mysql', 'dbname' => $name, 'charset' => 'utf8mb4',
            'unix_socket' => $this->setting('main.database.unix_socket'), 'user' => $this->setting('main.database.user'),
        ]);
    }

    public function applicationBox(): Connection
    {
        return $this->connection($this->setting('main.database.dbname'));
    }

    /** @return string[] */
    public function boxes(): array
    {
        return $this->applicationBox()->fetchFirstColumn('SELECT dbname FROM sbas ORDER BY sbas_id');
    }

    public function installedVersion(): string
    {
        return (string) $this->applicationBox()->fetchOne('SELECT version FROM sitepreff');
    }

    public function addBox(string $name): void
    {
        $box = $this->connection($name);
        $box->executeStatement('CREATE TABLE IF NOT EXISTS record (record_id INT AUTO_INCREMENT PRIMARY KEY,'
            . ' title VARCHAR(200) NOT NULL, moddate DATETIME NOT NULL)');
        $box->executeStatement('CREATE TABLE IF NOT EXISTS subdef (subdef_id INT AUTO_INCREMENT PRIMARY KEY,'
            . ' record_id INT NOT NULL, name VARCHAR(64) NOT NULL, path VARCHAR(255) NOT NULL, file VARCHAR(255) NOT NULL,'
            . ' version VARCHAR(16) NOT NULL, UNIQUE (record_id, name))');
        $box->executeStatement('CREATE TABLE IF NOT EXISTS pref (prop VARCHAR(64) PRIMARY KEY, value TEXT NOT NULL)');
        $box->executeStatement("REPLACE INTO pref VALUES ('version', ?)", [$this->version()]);
        $this->applicationBox()->insert('sbas', ['dbname' => $name]);
    }

    public function folder(string $box, string $kind): string
    {
        $folder = "$this->root/datas/$box/$kind";
        if (!is_dir($folder) && !@mkdir($folder, 0775, true) && !is_dir($folder)) {
            throw new RuntimeException("$folder cannot be made");
        }
        return $folder;
    }

    // --- the index

    public function search(string $method, string $path, ?array $body = null): array
    {
        $context = stream_context_create(['http' => [
            'method' => $method, 'ignore_errors' => true, 'timeout' => 30,
            'header' => "Content-Type: application/json\r\n", 'content' => $body === null ? '' : json_encode($body),
        ]]);
        $answer = file_get_contents($this->setting('main.search-engine.options.host') . $path, false, $context);
        $found = json_decode((string) $answer, true) ?? [];
        if (isset($found['error'])) {
            throw new RuntimeException("$method $path: " . json_encode($found['error']));
        }
        return $found;
    }

    public function alias(): string
    {
        return $this->setting('main.search-engine.options.index');
    }

    public function createIndex(string $name): void
    {
        $this->search('PUT', "/$name", ['settings' => ['number_of_shards' => 1, 'number_of_replicas' => 0]]);
    }

    public function populate(string $index): int
    {
        $count = 0;
        foreach ($this->boxes() as $box) {
            foreach ($this->connection($box)->fetchAllKeyValue('SELECT record_id, title FROM record') as $id => $title) {
                $this->search('PUT', "/$index/_doc/$box-$id", ['title' => $title, 'databox' => $box]);
                $count++;
            }
        }
        $this->search('POST', "/$index/_refresh");
        return $count;
    }

    // --- the queue

    public function channel(): AMQPChannel
    {
        if ($this->channel === null) {
            $connection = new AMQPStreamConnection('127.0.0.1', $this->setting('rabbitmq.port'), 'guest', 'guest');
            $this->channel = $connection->channel();
            $this->channel->queue_declare($this->setting('rabbitmq.queue'), false, true, false, false);
        }
        return $this->channel;
    }

    public function send(array $body): void
    {
        $message = new AMQPMessage(json_encode($body), ['delivery_mode' => AMQPMessage::DELIVERY_MODE_PERSISTENT]);
        $this->channel()->basic_publish($message, '', $this->setting('rabbitmq.queue'));
    }

    /** Make the thumbnail of a record. One that is gone (after a restore) is no error. */
    public function makeSubdefinition(string $box, int $record): void
    {
        $job = $this->applicationBox();
        $job->insert('WorkerRunningJob', ['work' => "$box-$record", 'status' => 'running']);
        $id = (int) $job->lastInsertId();
        usleep(20_000);
        $database = $this->connection($box);
        if ($database->fetchOne('SELECT 1 FROM record WHERE record_id = ?', [$record])) {
            $folder = $this->folder($box, 'subdefs');
            file_put_contents("$folder/$record.jpg", "thumbnail of $record");
            $database->executeStatement(
                "INSERT IGNORE INTO subdef(record_id, name, path, file, version) VALUES (?, 'thumbnail', ?, ?, ?)",
                [$record, $folder, "$record.jpg", $this->version()]
            );
        }
        $job->update('WorkerRunningJob', ['status' => 'finished'], ['id' => $id]);
    }
}
