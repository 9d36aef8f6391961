<?php

namespace Oro;

/** Schema versions by bundle: what the database has, what the release ships, what is to be run. */
final class Migrations
{
    /** They are always listed, whether anything is pending or not. */
    public const ALWAYS = [
        'Oro\Bundle\MigrationBundle\Migration\CreateMigrationTableMigration',
        'Oro\Bundle\MigrationBundle\Migration\UpdateBundleVersionMigration',
        'Oro\Bundle\EntityExtendBundle\Migration\UpdateExtendConfigMigration',
    ];

    public function __construct(private Kernel $kernel)
    {
    }

    /** @return array<string, string> the latest version of each bundle; the table has a row per bundle and run */
    public function applied(): array
    {
        $found = [];
        if ($this->kernel->hasTable('oro_migrations')) {
            foreach ($this->kernel->database()->fetchAllNumeric('SELECT bundle, version FROM oro_migrations') as $row) {
                [$bundle, $version] = $row;
                if (!isset($found[$bundle]) || version_compare($version, $found[$bundle]) > 0) {
                    $found[$bundle] = $version;
                }
            }
        }
        return $found;
    }

    /** @return array<int, array{bundle: string, version: string, class: string}> in the order in which they run */
    public function pending(): array
    {
        $applied = $this->applied();
        $found = [];
        foreach ($this->kernel->bundles() as $bundle => $folder) {
            $at = $applied[$bundle] ?? null;
            if ($at === null) {
                foreach (glob("$folder/Migrations/Schema/*Installer.php") as $file) {
                    $class = $this->classOf($file);
                    $at = (new $class())->getMigrationVersion();
                    $found[] = ['bundle' => $bundle, 'version' => $at, 'class' => $class];
                }
            }
            $versions = array_map('basename', glob("$folder/Migrations/Schema/v*", GLOB_ONLYDIR));
            usort($versions, 'version_compare');
            foreach ($versions as $version) {
                if ($at !== null && version_compare($version, $at) <= 0) {
                    continue;
                }
                foreach (glob("$folder/Migrations/Schema/$version/*.php") as $file) {
                    $found[] = ['bundle' => $bundle, 'version' => $version, 'class' => $this->classOf($file)];
                }
            }
        }
        return $found;
    }

    /** @return string[] classes of data fixtures that did not run yet */
    public function fixtures(): array
    {
        $ran = $this->kernel->hasTable('oro_migrations_data')
            ? $this->kernel->database()->fetchFirstColumn('SELECT class_name FROM oro_migrations_data') : [];
        $found = [];
        foreach ($this->kernel->bundles() as $folder) {
            foreach (glob("$folder/Migrations/Data/ORM/*.php") as $file) {
                $found[] = $this->classOf($file);
            }
        }
        return array_values(array_diff($found, $ran));
    }

    private function classOf(string $file): string
    {
        $inside = substr($file, strlen("{$this->kernel->root}/src/"), -strlen('.php'));
        return str_replace('/', '\\', $inside);
    }
}
