<?php
// As in Phraseanet, -d drops, -c creates and -p populates. --index names another index than the one in use.

use Dam\App;
use Symfony\Component\Console\Application;
use Symfony\Component\Console\Input\InputInterface;
use Symfony\Component\Console\Input\InputOption;
use Symfony\Component\Console\Output\OutputInterface;

return static function (Application $application, App $app): void {
    $command = $application->register('searchengine:index');
    foreach (['drop' => 'd', 'create' => 'c', 'populate' => 'p', 'force' => null] as $name => $short) {
        $command->addOption($name, $short, InputOption::VALUE_NONE);
    }
    $command->addOption('index', null, InputOption::VALUE_REQUIRED);
    $command->setCode(static function (InputInterface $input, OutputInterface $output) use ($app): int {
        $index = $input->getOption('index') ?? $app->alias();
        if ($input->getOption('drop') && $input->getOption('force')) {
            foreach (array_keys($app->search('GET', "/$index*/_alias")) as $name) {
                $app->search('DELETE', "/$name");
            }
        }
        if ($input->getOption('create')) {
            $app->createIndex($index);
        }
        if ($input->getOption('populate')) {
            $output->writeln($app->populate($index) . ' records');
        }
        return 0;
    });
};
