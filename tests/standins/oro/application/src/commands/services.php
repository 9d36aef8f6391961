<?php

use Oro\Kernel;
use Oro\Queue;
use Symfony\Component\Console\Application;
use Symfony\Component\Console\Input\InputInterface;
use Symfony\Component\Console\Input\InputOption as Option;
use Symfony\Component\Console\Output\OutputInterface;

return static function (Application $application, Kernel $kernel): void {
    $queue = new Queue($kernel);

    $consume = $application->register('oro:message-queue:consume');
    foreach (['memory-limit', 'time-limit', 'message-limit'] as $name) {
        $consume->addOption($name, null, Option::VALUE_REQUIRED);
    }
    $consume->setCode(static function (InputInterface $input, OutputInterface $output) use ($kernel, $queue): int {
        $ends = false;
        pcntl_async_signals(true);
        foreach ([SIGTERM, SIGINT, SIGQUIT] as $signal) {
            pcntl_signal($signal, static function () use (&$ends): void {
                $ends = true;
            });
        }
        $kernel->container();
        $began = microtime(true);
        $until = $input->getOption('time-limit') ? strtotime($input->getOption('time-limit')) : PHP_INT_MAX;
        $left = (int) ($input->getOption('message-limit') ?: PHP_INT_MAX);
        $limit = 1048576 * (int) ($input->getOption('memory-limit') ?: 4096);
        $state = $queue->cacheState();
        while (!$ends && $left > 0 && time() < $until && memory_get_usage() < $limit) {
            if (is_file($kernel->maintenanceFile())) {
                $output->writeln('The consumer sleeps during maintenance.');
                while (is_file($kernel->maintenanceFile())) { // whatever signal comes meanwhile
                    usleep(1000 * (int) $kernel->env('ORO_MAINTENANCE_MS', '5000'));
                    clearstatcache();
                }
                continue;
            }
            if ($queue->cacheState() !== $state) {
                $output->writeln('The cache changed: the consumer ends.');
                return 0;
            }
            $message = $queue->claim('consumer.' . getmypid());
            if ($message === null) {
                usleep(50000);
                continue;
            }
            $queue->handle($message);
            --$left;
        }
        return 0;
    });

    $application->register('oro:cron')->setCode(static function () use ($kernel, $queue): int {
        if (is_file($kernel->maintenanceFile())) {
            return 1;
        }
        foreach ($kernel->database()->fetchFirstColumn('SELECT command FROM oro_cron_schedule') as $command) {
            $queue->send('oro.cron', ['command' => $command]);
        }
        return 0;
    });

    $application->register('gos:websocket:server')->setCode(static function () use ($kernel): int {
        $address = preg_replace('~^//\*:~', '127.0.0.1:', $kernel->env('ORO_WEBSOCKET_SERVER_DSN', '//*:8080'));
        $server = stream_socket_server("tcp://$address", $code, $message);
        if ($server === false) {
            fwrite(STDERR, "cannot listen at $address: $message\n"); // a second one never starts
            return 1;
        }
        while (true) {
            if ($client = @stream_socket_accept($server, 3600)) {
                fread($client, 4096);
                $body = $kernel->version();
                $length = strlen($body);
                fwrite($client, "HTTP/1.1 200 OK\r\nContent-Length: $length\r\nConnection: close\r\n\r\n$body");
                fclose($client);
            }
        }
    });
};
