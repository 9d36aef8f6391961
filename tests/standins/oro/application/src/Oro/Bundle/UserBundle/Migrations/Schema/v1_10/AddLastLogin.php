<?php

namespace Oro\Bundle\UserBundle\Migrations\Schema\v1_10;

final class AddLastLogin
{
    /** @return string[] */
    public function queries(): array
    {
        return [
            "ALTER TABLE oro_user ADD last_login TIMESTAMP DEFAULT NULL",
        ];
    }
}
