<?php
// The front controller: a login page with the banner, and records that visitors add.

require __DIR__ . '/../src/autoload.php';

use Dam\App;

$app = new App(dirname(__DIR__));
$answer = static function (int $status, array $content): never {
    http_response_code($status);
    header('Content-Type: application/json');
    exit(json_encode($content));
};
try {
    if ($app->setting('main.maintenance')) {
        header('Retry-After: 3600');
        $answer(503, ['error' => 'maintenance']);
    }
    $path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
    if ($path === '/record' && $_SERVER['REQUEST_METHOD'] === 'POST') {
        $boxes = $app->boxes();
        $box = $boxes[random_int(0, count($boxes) - 1)];
        $title = file_get_contents('php://input');
        $database = $app->connection($box);
        $database->insert('record', ['title' => $title, 'moddate' => date('Y-m-d H:i:s')]);
        $id = (int) $database->lastInsertId();
        $folder = $app->folder($box, 'documents');
        file_put_contents("$folder/$id.bin", str_repeat($title, 100));
        $database->insert('subdef', [
            'record_id' => $id, 'name' => 'document', 'path' => $folder, 'file' => "$id.bin", 'version' => $app->version(),
        ]);
        $app->search('PUT', '/' . $app->alias() . "/_doc/$box-$id?refresh=true", ['title' => $title, 'databox' => $box]);
        $app->send(['databox' => $box, 'record' => $id]);
        $answer(201, ['databox' => $box, 'record' => $id]);
    }
    $banner = $app->setting('registry.maintenance.enabled') ? $app->setting('registry.maintenance.message') : '';
    $answer(200, ['version' => $app->version(), 'banner' => $banner] + require __DIR__ . '/../src/page.php');
} catch (Throwable $error) {
    error_log($error->getMessage());
    $answer(500, ['error' => $error::class]);
}
