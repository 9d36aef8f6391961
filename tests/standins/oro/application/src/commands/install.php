<?php

use Oro\Kernel;
use Symfony\Component\Console\Application;
use Symfony\Component\Console\Input\InputInterface;
use Symfony\Component\Console\Input\InputOption as Option;
use Symfony\Component\Console\Output\OutputInterface;

return static function (Application $application, Kernel $kernel): void {
    // As the real ones: each part runs as a process of its own.
    $child = static function (OutputInterface $output, string ...$arguments) use ($kernel): int {
        $pipes = [];
        $command = [PHP_BINARY, "$kernel->root/bin/console", ...$arguments, '--env=prod', '--no-interaction'];
        $output->writeln('> ' . implode(' ', $arguments));
        $process = proc_open($command, [['file', '/dev/null', 'r'], STDOUT, STDERR], $pipes, $kernel->root);
        return proc_close($process);
    };
    $all = static function (OutputInterface $output, array $commands) use ($child): int {
        foreach ($commands as $command) {
            if (($code = $child($output, ...$command)) !== 0) {
                $output->writeln("<error>{$command[0]} ended with $code</error>");
                return 1;
            }
        }
        return 0;
    };
    $parts = [
        ['oro:migration:load', '--force'],
        ['oro:cron:definitions:load'],
        ['oro:migration:data:load'],
        ['oro:message-queue:create-queues'],
        ['fos:js-routing:dump'],
        ['oro:translation:dump'],
    ];

    $application->register('oro:check-requirements')->setCode(
        static function (InputInterface $input, OutputInterface $output) use ($kernel): int {
            foreach ($wrong = $kernel->notWritable() as $name) {
                $output->writeln("<error>$name must be writable</error>");
            }
            return $wrong ? 1 : 0;
        }
    );

    $install = $application->register('oro:install');
    foreach (['timeout', 'sample-data', 'application-url', 'organization-name', 'user-name', 'user-email',
        'user-firstname', 'user-lastname', 'user-password'] as $name) {
        $install->addOption($name, null, Option::VALUE_REQUIRED);
    }
    $install->addOption('skip-translations')->addOption('skip-download-translations')->addOption('drop-database');
    $install->setCode(static function (InputInterface $input, OutputInterface $output) use ($kernel, $all, $parts): int {
        foreach (['user-name', 'user-email', 'user-password', 'application-url'] as $name) {
            if (!$input->getOption($name)) {
                $output->writeln("<error>--$name is needed</error>");
                return 1;
            }
        }
        if (!$input->getOption('skip-download-translations')) {
            $output->writeln('<error>the server of translations cannot be reached</error>');
            return 1;
        }
        if ($kernel->isInstalled() && !$input->getOption('drop-database')) {
            $output->writeln('<error>The application is already installed.</error>');
            return 1;
        }
        if ($input->getOption('drop-database')) {
            $kernel->database()->executeStatement('DROP SCHEMA public CASCADE; CREATE SCHEMA public');
        }
        if ($all($output, [['oro:check-requirements'], ...$parts]) !== 0) {
            return 1;
        }
        $database = $kernel->database();
        $database->insert('oro_user', [
            'username' => $input->getOption('user-name'), 'email' => $input->getOption('user-email'),
            'password' => password_hash($input->getOption('user-password'), PASSWORD_BCRYPT, ['cost' => 4]),
            'title' => 'Administrator',
        ]);
        foreach ([
            ['oro_distribution', 'is_installed', date(DATE_ATOM)],
            ['oro_ui', 'application_url', $input->getOption('application-url')],
            ['acme', 'smtp_password', $kernel->sealed('smtp')],
        ] as [$section, $name, $value]) {
            $row = ['section' => $section, 'name' => $name, 'text_value' => $value];
            $database->insert('oro_config_value', $row);
        }
        return $all($output, [['cache:warmup']]);
    });

    $update = $application->register('oro:platform:update');
    $update->addOption('force')->addOption('timeout', null, Option::VALUE_REQUIRED);
    $update->addOption('skip-translations')->addOption('skip-download-translations')->addOption('skip-assets');
    $update->setCode(static function (InputInterface $input, OutputInterface $output) use ($kernel, $all, $parts): int {
        if ($all($output, [['oro:check-requirements'], ['oro:entity-extend:update', '--dry-run']]) !== 0) {
            $output->writeln('<error>The application cannot be updated.</error>');
            return 1;
        }
        if (!$input->getOption('force')) {
            $output->writeln('To proceed run the command with --force.'); // and that is a success
            return 0;
        }
        if (!$input->getOption('skip-download-translations')) {
            $output->writeln('<error>the server of translations cannot be reached</error>');
            return 1;
        }
        return $all($output, [...$parts, ['router:cache:clear']]);
    });

    $application->register('oro:entity-extend:update')->addOption('dry-run')->setCode(
        static function (InputInterface $input, OutputInterface $output) use ($kernel): int {
            $changes = $kernel->database()->fetchFirstColumn(
                "SELECT entity || '::' || field_name FROM oro_entity_config_field WHERE state = 'Requires update'"
            );
            foreach ($changes as $change) {
                $output->writeln("<error>$change has changes that are not applied</error>");
            }
            return $changes ? 1 : 0;
        }
    );

    $application->register('oro:cron:definitions:load')->setCode(
        static function (InputInterface $input, OutputInterface $output) use ($kernel): int {
            $kernel->database()->executeStatement('DELETE FROM oro_cron_schedule'); // and every row is written again
            foreach (['oro:cron:cleanup', 'oro:cron:report', 'oro:cron:digest'] as $command) {
                $kernel->database()->insert('oro_cron_schedule', ['command' => $command, 'definition' => '* * * * *']);
            }
            return 0;
        }
    );

    // These two write into the folder of public uploads what belongs to the release.
    foreach (['fos:js-routing:dump' => 'routes.json', 'oro:translation:dump' => 'translation.json'] as $name => $file) {
        $application->register($name)->setCode(
            static function (InputInterface $input, OutputInterface $output) use ($kernel, $file): int {
                @mkdir("$kernel->root/public/media/js", 0775, true);
                $written = file_put_contents("$kernel->root/public/media/js/$file", json_encode($kernel->version()));
                return $written === false ? 1 : 0;
            }
        );
    }

    $application->register('oro:message-queue:create-queues')->setCode(static fn (): int => 0);

    $application->register('oro:search:reindex')->setCode(
        static function (InputInterface $input, OutputInterface $output) use ($kernel): int {
            $kernel->database()->executeStatement('TRUNCATE oro_search_item');
            $kernel->database()->executeStatement(
                "INSERT INTO oro_search_item(entity, record_id, title) SELECT 'order', id, text FROM acme_order"
            );
            return 0;
        }
    );

    $application->register('oro:assets:install')->setCode(
        static function (InputInterface $input, OutputInterface $output) use ($kernel): int {
            foreach ($kernel->bundles() as $bundle => $folder) { // without the database, when a package is built
                $target = "$kernel->root/public/bundles/" . strtolower(str_replace('Bundle', '', $bundle));
                @mkdir($target, 0775, true);
                foreach (glob("$folder/Resources/public/*") as $file) {
                    copy($file, "$target/" . basename($file));
                }
            }
            @mkdir("$kernel->root/public/build", 0775, true);
            file_put_contents("$kernel->root/public/build/build_version.txt", $kernel->version());
            return 0;
        }
    );
};
