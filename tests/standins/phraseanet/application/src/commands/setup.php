<?php
// system:install writes the configuration and the first DataBox; system:upgrade runs the patches of newer versions.

use Dam\App;
use Symfony\Component\Console\Application;
use Symfony\Component\Console\Input\InputArgument;
use Symfony\Component\Console\Input\InputInterface;
use Symfony\Component\Console\Input\InputOption;
use Symfony\Component\Console\Output\OutputInterface;

return static function (Application $application, App $app): void {
    $install = $application->register('system:install');
    foreach (['db-socket', 'db-user', 'ab-name', 'databox', 'es-host', 'es-index', 'amqp-port'] as $name) {
        $install->addOption($name, null, InputOption::VALUE_REQUIRED);
    }
    $install->setCode(static function (InputInterface $input) use ($app): int {
        $text = strtr(file_get_contents("$app->root/src/configuration.sample.yml"), [
            '{socket}' => $input->getOption('db-socket'), '{user}' => $input->getOption('db-user'),
            '{name}' => $input->getOption('ab-name'), '{host}' => $input->getOption('es-host'),
            '{index}' => $input->getOption('es-index'), '{port}' => $input->getOption('amqp-port'),
        ]);
        file_put_contents($app->configurationFile(), $text);
        $app->compile();
        $box = $app->applicationBox();
        $box->executeStatement('CREATE TABLE sbas (sbas_id INT AUTO_INCREMENT PRIMARY KEY, dbname VARCHAR(128) NOT NULL)');
        $box->executeStatement('CREATE TABLE sitepreff (id INT PRIMARY KEY, version VARCHAR(16) NOT NULL)');
        $box->executeStatement('CREATE TABLE users (id INT AUTO_INCREMENT PRIMARY KEY, login VARCHAR(128), email VARCHAR(255))');
        $box->executeStatement('CREATE TABLE WorkerRunningJob (id INT AUTO_INCREMENT PRIMARY KEY, work VARCHAR(64), status VARCHAR(16))');
        $box->executeStatement("INSERT INTO users(login, email) VALUES ('admin', 'admin@example.org')");
        $box->insert('sitepreff', ['id' => 1, 'version' => $app->version()]);
        $app->addBox($input->getOption('databox'));
        $first = $app->alias() . '_1';
        $app->createIndex($first);
        $app->search('POST', '/_aliases', ['actions' => [['add' => ['index' => $first, 'alias' => $app->alias()]]]]);
        return 0;
    });

    $application->register('databox:create')->addArgument('name', InputArgument::REQUIRED)->setCode(
        static function (InputInterface $input) use ($app): int {
            $app->addBox($input->getArgument('name'));
            return 0;
        }
    );

    $upgrade = $application->register('system:upgrade')->addOption('yes', 'y', InputOption::VALUE_NONE);
    $upgrade->setCode(static function (InputInterface $input, OutputInterface $output) use ($app): int {
        if (!$input->getOption('yes')) {
            $output->writeln('Say -y.');
            return 1;
        }
        foreach (glob("$app->root/src/patches/*.php") as $file) {
            if (version_compare(basename($file, '.php'), $app->installedVersion()) <= 0) {
                continue;
            }
            $patch = require $file;
            foreach ($patch['databoxes'] ?? [] as $statement) {
                foreach ($app->boxes() as $box) {
                    $app->connection($box)->executeStatement($statement);
                }
            }
            foreach ($patch['applicationbox'] ?? [] as $statement) {
                $app->applicationBox()->executeStatement($statement);
            }
        }
        foreach ($app->boxes() as $box) {
            $app->connection($box)->executeStatement("REPLACE INTO pref VALUES ('version', ?)", [$app->version()]);
        }
        $app->applicationBox()->update('sitepreff', ['version' => $app->version()], ['id' => 1]);
        $app->compile();
        return 0;
    });
};
