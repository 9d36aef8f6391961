<?php
// Debian's packages of Symfony and Doctrine, and the classes of the bundles.

require '/usr/share/php/Symfony/Component/Console/autoload.php';
require '/usr/share/php/Doctrine/DBAL/autoload.php';

spl_autoload_register(static function (string $class): void {
    $file = __DIR__ . '/' . str_replace('\\', '/', $class) . '.php';
    if (is_file($file)) {
        require $file;
    }
});
