<?php

use Oro\Kernel;
use Symfony\Component\Console\Application;
use Symfony\Component\Console\Input\InputInterface;
use Symfony\Component\Console\Output\OutputInterface;
use Symfony\Component\Console\Question\ConfirmationQuestion;

return static function (Application $application, Kernel $kernel): void {
    $application->register('cache:warmup')->setCode(
        static function () use ($kernel): int {
            $kernel->warm(); // of the database: where there is none, it fails
            return 0;
        }
    );
    $clear = static function () use ($kernel): void {
        foreach (array_filter([...glob($kernel->cacheDirectory() . '/*'), $kernel->maintenanceFile()], 'is_file') as $file) {
            unlink($file);
        }
    };
    $application->register('cache:clear')->addOption('no-warmup')->setCode(
        static function (InputInterface $input) use ($kernel, $clear): int {
            $clear();
            $input->getOption('no-warmup') || $kernel->warm();
            return 0;
        }
    );
    $application->register('router:cache:clear')->setCode(static function () use ($kernel): int {
        @unlink($kernel->cacheDirectory() . '/container.php');
        return 0;
    });

    foreach (['lock', 'unlock'] as $action) {
        $application->register("oro:maintenance:$action")->setCode(
            static function (InputInterface $input, OutputInterface $output) use ($application, $kernel, $action): int {
                $question = new ConfirmationQuestion('Are you sure? (y/N) ', false);
                if ($input->isInteractive() && !$application->getHelperSet()->get('question')->ask($input, $output, $question)) {
                    return 1;
                }
                $file = $kernel->maintenanceFile();
                @mkdir(dirname($file), 0775, true);
                $action === 'lock' ? touch($file) : @unlink($file);
                return 0;
            }
        );
    }
};
