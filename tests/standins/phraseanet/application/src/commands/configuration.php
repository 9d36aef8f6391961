<?php

use Dam\App;
use Symfony\Component\Console\Application;

return static function (Application $application, App $app): void {
    $application->register('compile:configuration')->setCode(static function () use ($app): int {
        $app->compile();
        return 0;
    });
};
