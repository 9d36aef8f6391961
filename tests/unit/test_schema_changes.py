"""Which SQL of migrations the code from before tolerates."""

from __future__ import annotations

import pytest

from holdfast.application.schema_changes import intolerable

_ADDS = [
    "ALTER TABLE users ADD nickname VARCHAR(100) DEFAULT NULL",
    "ALTER TABLE users ADD COLUMN IF NOT EXISTS flags JSON, ADD size INT NOT NULL DEFAULT 0",
    'ALTER TABLE ONLY "public"."users" ALTER COLUMN "name" DROP NOT NULL',
    "CREATE TABLE tags (id SERIAL PRIMARY KEY,\n  name TEXT NOT NULL\n);\nCREATE UNIQUE INDEX t ON tags (name);",
    "ALTER TABLE users ADD tag_id INT DEFAULT NULL;"
    "ALTER TABLE users ADD CONSTRAINT fk FOREIGN KEY (tag_id) REFERENCES tags (id) NOT DEFERRABLE",
    "ALTER TABLE users ADD rank INT DEFAULT NULL\nUPDATE users SET rank = 1, rank = 2 WHERE id > 3",
    "CREATE INDEX i ON users (name)\nCOMMENT ON COLUMN users.name IS '(DC2Type:array); DROP TABLE users'",
    "INSERT INTO settings (name, value) VALUES ('text', 'DROP TABLE users; '';')",
    'BEGIN;\n--\n-- Add field\n--\nALTER TABLE "shop_item" ADD COLUMN "size" integer NULL;\nCOMMIT;',
    "     -> ALTER TABLE `shop`.`item` ADD INDEX x (size)\n[notice] finished in 3 ms",
    "List of migrations:\n  > Some\\Class\n",
    "SELECT setval('users_id_seq', (SELECT max(id) FROM users))\nSELECT count(*) FROM users",
    "INSERT INTO settings (name) VALUES ('a') ON CONFLICT DO NOTHING",
]
_CHANGES = {
    "ALTER TABLE users DROP COLUMN title": ["drops column users.title"],
    "ALTER TABLE users DROP title, ADD x INT": ["drops column users.title"],
    "ALTER TABLE users ALTER name TYPE VARCHAR(20)": ["alters column users.name"],
    "ALTER TABLE users ALTER COLUMN name SET NOT NULL": ["alters column users.name"],
    "ALTER TABLE `users` CHANGE name name VARCHAR(9), MODIFY x INT": [
        "alters column users.name",
        "alters column users.x",
    ],
    "ALTER TABLE users RENAME COLUMN a TO b": ["renames column users.a"],
    "ALTER TABLE users RENAME TO persons": ["renames table users"],
    "ALTER TABLE users ADD size INT NOT NULL": ["adds column users.size, which needs a value"],
    "ALTER TABLE users ADD CONSTRAINT c CHECK (size > 0)": ["constrains rows of users"],
    "ALTER TABLE users ADD CONSTRAINT f FOREIGN KEY (tag_id) REFERENCES tags (id)": ["constrains users.tag_id"],
    "ALTER TABLE users DROP CONSTRAINT c": ["drops constraint c of users"],
    "ALTER TABLE users SET LOGGED": ["does what is not understood: ALTER TABLE users SET LOGGED"],
    "DROP TABLE IF EXISTS users, tags": ["drops table users"],
    "DROP INDEX i": ["drops index i"],
    "CREATE UNIQUE INDEX u ON users (name)": ["makes rows of users unique"],
    "TRUNCATE users": ["deletes rows of users"],
    "DELETE FROM users WHERE id = 3": ["deletes rows of users"],
    "UPDATE users SET name = 'a, b'": ["changes rows of users"],
    "SELECT DropGeometryColumn('users', 'place')": [
        "does what is not understood: SELECT DropGeometryColumn('users', 'place')"
    ],
    "INSERT INTO users (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = 'a'": ["changes rows of users"],
    "INSERT INTO users VALUES (1) ON DUPLICATE KEY UPDATE name = 'a'": ["changes rows of users"],
    "DO $$ BEGIN END $$": ["does what is not understood: DO $$ BEGIN END $$"],
    "DELETE FROM oro_entity_config_field WHERE entity = 'User' AND field_name = 'title'": ["drops entity field title"],
    "-- THIS OPERATION CANNOT BE WRITTEN AS SQL": ["runs code whose effect is not known before"],
}


@pytest.mark.parametrize("printed", _ADDS)
def test_what_only_adds_is_tolerated(printed: str) -> None:
    assert intolerable(printed) == []


@pytest.mark.parametrize("printed", _CHANGES)
def test_what_takes_away_is_named(printed: str) -> None:
    assert intolerable(printed) == _CHANGES[printed]
    assert intolerable(f"BEGIN;\n{printed};\nCOMMIT;") == _CHANGES[printed]
