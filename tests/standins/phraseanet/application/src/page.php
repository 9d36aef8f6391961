<?php
return ["boxes" => count($app->boxes())];
