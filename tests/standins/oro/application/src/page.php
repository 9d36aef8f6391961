<?php
// What every page of this version reads.

return ['title' => $database->fetchOne('SELECT title FROM oro_user ORDER BY id LIMIT 1')];
