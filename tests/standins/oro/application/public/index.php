<?php
// The front controller: a login page, orders that visitors write, uploads, a session.

require __DIR__ . '/../src/autoload.php';

use Oro\Kernel;
use Oro\Queue;

$kernel = new Kernel(dirname(__DIR__));
$answer = static function (int $status, array $content): never {
    http_response_code($status);
    header('Content-Type: application/json');
    exit(json_encode($content));
};
if (is_file($kernel->maintenanceFile())) { // each of these answers costs a request of PHP
    $answer(503, ['error' => 'maintenance']);
}
try {
    $container = $kernel->container();
    $database = $kernel->database();
    if ($database->fetchOne("SELECT text_value FROM oro_config_value WHERE section = 'acme'") !== $kernel->sealed('smtp')) {
        throw new RuntimeException('a value of the configuration cannot be decrypted: ORO_SECRET is another one');
    }
    $path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
    $posted = $_SERVER['REQUEST_METHOD'] === 'POST';
    if ($path === '/order' && $posted) {
        $id = $database->fetchOne('INSERT INTO acme_order(text) VALUES (?) RETURNING id', [file_get_contents('php://input')]);
        (new Queue($kernel))->send('acme.order', ['order' => $id]);
        $answer(201, ['order' => $id, 'version' => $kernel->version()]);
    }
    if ($path === '/upload' && $posted) {
        $content = file_get_contents('php://input');
        $name = substr(hash('sha256', $content), 0, 16) . '.bin';
        @mkdir(__DIR__ . '/media/uploads', 0775, true);
        file_put_contents(__DIR__ . "/media/uploads/$name", $content);
        $database->insert('acme_attachment', ['filename' => "uploads/$name"]);
        $answer(201, ['file' => $name]);
    }
    if ($path === '/session') {
        session_save_path(dirname(__DIR__) . '/var/sessions');
        session_start();
        $_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
        $answer(200, ['visits' => $_SESSION['visits'], 'version' => $kernel->version()]);
    }
    $answer(200, ['page' => $path, 'version' => $kernel->version(), 'built_for' => $container['version']] + require __DIR__ . '/../src/page.php');
} catch (Throwable $error) {
    error_log($error->getMessage());
    $answer(500, ['error' => $error::class]);
}
