<?php

namespace Oro\Bundle\UserBundle\Migrations\Schema\v1_9;

final class AddTitle
{
    /** @return string[] */
    public function queries(): array
    {
        return [
            "SELECT 1",
        ];
    }
}
