<?php

namespace Oro\Bundle\UserBundle\Migrations\Schema\v1_0;

final class CreateUsers
{
    /** @return string[] */
    public function queries(): array
    {
        return [
            "SELECT 1",
        ];
    }
}
