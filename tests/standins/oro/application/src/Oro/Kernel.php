<?php

namespace Oro;

use Doctrine\DBAL\Connection;
use Doctrine\DBAL\DriverManager;

/** One release of the application: its paths, its environment, its database. */
final class Kernel
{
    private ?Connection $connection = null;

    public function __construct(public readonly string $root)
    {
        foreach (['.env-app', '.env-app.local'] as $name) {
            foreach (is_file("$root/$name") ? file("$root/$name") : [] as $line) {
                if (preg_match('/^([A-Z_]+)=(.*)$/', trim($line), $found)) {
                    $_SERVER[$found[1]] = trim($found[2], '"');
                }
            }
        }
    }

    public function version(): string
    {
        return trim(file_get_contents("$this->root/VERSION"));
    }

    public function env(string $name, string $default = ''): string
    {
        return $_SERVER[$name] ?? (getenv($name) ?: $default);
    }

    public function database(): Connection
    {
        return $this->connection ??= DriverManager::getConnection(['url' => $this->env('ORO_DB_URL')]);
    }

    public function hasTable(string $name): bool
    {
        return (bool) $this->database()->fetchOne('SELECT to_regclass(?)', [$name]);
    }

    /** There is no file that says so: a row of the configuration does. */
    public function isInstalled(): bool
    {
        return $this->hasTable('oro_config_value') && (bool) $this->database()->fetchOne(
            "SELECT text_value FROM oro_config_value WHERE section = 'oro_distribution' AND name = 'is_installed'"
        );
    }

    /** By default inside the cache of the release: another release does not see it, and a cleared cache lifts it. */
    public function maintenanceFile(): string
    {
        return $this->env('ORO_MAINTENANCE_LOCK_FILE_PATH', "$this->root/var/cache/maintenance_lock");
    }

    public function sealed(string $value): string
    {
        return hash_hmac('sha256', $value, $this->env('ORO_SECRET'));
    }

    /** @return array<string, string> name of a bundle => its folder, in the order of loading */
    public function bundles(): array
    {
        $found = [];
        foreach (json_decode(file_get_contents("$this->root/config/bundles.json"), true) as $class) {
            $file = "$this->root/src/" . str_replace('\\', '/', $class) . '.php';
            $found[basename($file, '.php')] = dirname($file);
        }
        return $found;
    }

    public function cacheDirectory(): string
    {
        return "$this->root/var/cache/prod";
    }

    /** What `cache:warmup` makes: it is read from the database, and every page needs it. */
    public function container(): array
    {
        $file = $this->cacheDirectory() . '/container.php';
        if (!is_file($file)) {
            $this->warm();
        }
        return require $file;
    }

    public function warm(): void
    {
        $made = ['version' => $this->version(), 'fields' => $this->database()->fetchAllKeyValue(
            'SELECT field_name, type FROM oro_entity_config_field ORDER BY 1'
        )];
        foreach (glob("$this->root/src/Oro/*.php") as $file) {
            token_get_all(file_get_contents($file), TOKEN_PARSE); // as a container is built of all classes
        }
        @mkdir($this->cacheDirectory(), 0775, true);
        $new = $this->cacheDirectory() . '/container.' . getmypid();
        file_put_contents($new, '<?php return ' . var_export($made, true) . ';');
        rename($new, $this->cacheDirectory() . '/container.php');
    }

    /** @return string[] what an account would not be able to write */
    public function notWritable(): array
    {
        $needed = ['public/js', 'public/bundles', 'public/media', 'var/data', 'var/logs', 'var/cache'];
        return array_filter($needed, fn (string $name): bool => !is_writable("$this->root/$name"));
    }
}
