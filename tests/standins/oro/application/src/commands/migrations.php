<?php

use Oro\Kernel;
use Oro\Migrations;
use Symfony\Component\Console\Application;
use Symfony\Component\Console\Input\InputInterface;
use Symfony\Component\Console\Output\OutputInterface;

return static function (Application $application, Kernel $kernel): void {
    $migrations = new Migrations($kernel);

    $load = $application->register('oro:migration:load');
    $load->addOption('force')->addOption('dry-run')->addOption('show-queries');
    $load->setCode(static function (InputInterface $input, OutputInterface $output) use ($kernel, $migrations): int {
        $kernel->isInstalled() && $kernel->container(); // it builds the container of a cold cache
        $dry = $input->getOption('dry-run');
        if (!$dry && !$input->getOption('force')) {
            $output->writeln('To proceed run the command with --force.');
            return 0;
        }
        $output->writeln($dry ? 'List of migrations:' : 'Process migrations...');
        $failed = false;
        $done = [];
        foreach ($migrations->pending() as ['bundle' => $bundle, 'version' => $version, 'class' => $class]) {
            $output->writeln("  > $class" . ($failed ? ' - skipped' : ''));
            if ($failed) {
                continue;
            }
            foreach ((new $class())->queries() as $query) { // one by one, in no transaction
                if ($dry) {
                    $input->getOption('show-queries') && $output->writeln("$query;");
                    continue;
                }
                try {
                    $kernel->database()->executeStatement($query);
                } catch (\Doctrine\DBAL\Exception $error) {
                    $output->writeln("<error>  ERROR: {$error->getMessage()}</error>");
                    $failed = true;
                    unset($done[$bundle]);
                    break;
                }
            }
            $failed || $done[$bundle] = $version;
        }
        foreach (Migrations::ALWAYS as $class) {
            $output->writeln("  > $class" . ($failed ? ' - skipped' : ''));
        }
        foreach ($dry ? [] : $done as $bundle => $version) { // the latest of each bundle, whatever ran before it
            $row = ['bundle' => $bundle, 'version' => $version, 'loaded_at' => date(DATE_ATOM)];
            $kernel->database()->insert('oro_migrations', $row);
        }
        if ($done && !$dry) {
            $kernel->database()->executeStatement(
                "INSERT INTO oro_message_queue_state(id, updated_at) VALUES ('cache', clock_timestamp())"
                . ' ON CONFLICT (id) DO UPDATE SET updated_at = excluded.updated_at'
            );
        }
        return $failed ? 1 : 0;
    });

    $data = $application->register('oro:migration:data:load')->addOption('dry-run');
    $data->setCode(static function (InputInterface $input, OutputInterface $output) use ($kernel, $migrations): int {
        foreach ($migrations->fixtures() as $class) {
            $output->writeln("  > $class");
            if (!$input->getOption('dry-run')) {
                (new $class())->load($kernel->database());
                $row = ['class_name' => $class, 'version' => '1.0'];
                $kernel->database()->insert('oro_migrations_data', $row);
            }
        }
        $output->writeln('  > Oro\Bundle\MigrationBundle\Migration\UpdateDataFixturesFixture');
        return 0;
    });
};
