<?php
// Workers make thumbnails. Phraseanet has no command that says whether they are done: an operator adds the second one.

use Dam\App;
use PhpAmqpLib\Exception\AMQPTimeoutException;
use PhpAmqpLib\Message\AMQPMessage;
use Symfony\Component\Console\Application;
use Symfony\Component\Console\Output\OutputInterface;
use Symfony\Component\Console\Input\InputInterface;

return static function (Application $application, App $app): void {
    $application->register('worker:execute')->setCode(static function () use ($app): int {
        $ends = false;
        pcntl_async_signals(true);
        pcntl_signal(SIGTERM, static function () use (&$ends): void {
            $ends = true;
        });
        $channel = $app->channel();
        $channel->basic_qos(0, 1, false);
        $queue = $app->setting('rabbitmq.queue');
        $channel->basic_consume($queue, '', false, false, false, false, static function (AMQPMessage $message) use ($app): void {
            $body = json_decode($message->getBody(), true);
            $app->makeSubdefinition($body['databox'], $body['record']);
            $message->ack();
        });
        while (!$ends) {
            try {
                $channel->wait(null, false, 0.5);
            } catch (AMQPTimeoutException) {
            }
        }
        return 0;
    });
    $application->register('records:build-missing-subdefs')->setCode(static function () use ($app): int {
        foreach ($app->boxes() as $box) {
            foreach ($app->connection($box)->fetchFirstColumn('SELECT record_id FROM record') as $record) {
                if (!is_file($app->folder($box, 'subdefs') . "/$record.jpg")) {
                    $app->send(['databox' => $box, 'record' => (int) $record]);
                }
            }
        }
        return 0;
    });
    $application->register('worker:is-idle')->setCode(
        static function (InputInterface $input, OutputInterface $output) use ($app): int {
            $waiting = $app->channel()->queue_declare($app->setting('rabbitmq.queue'), true)[1];
            $running = $app->applicationBox()->fetchOne("SELECT count(*) FROM WorkerRunningJob WHERE status = 'running'");
            $output->writeln("$waiting waiting, $running running");
            return $waiting + $running > 0 ? 1 : 0;
        }
    );
};
