"""Where programs of MariaDB and MySQL are made: in no database that their statements name."""

from __future__ import annotations

import pytest

from holdfast.drivers.databases.mariadb.stored_objects import in_no_database


@pytest.mark.parametrize(
    ("typed", "made"),
    [
        (
            b"CREATE TRIGGER shop.tr AFTER INSERT ON shop.t FOR EACH ROW SET @a = 1",
            b"CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW SET @a = 1",
        ),
        (
            b"CREATE TRIGGER `sh``op`.`t.r` BEFORE UPDATE ON `sh``op`.`t` FOR",
            b"CREATE TRIGGER `t.r` BEFORE UPDATE ON `t` FOR",
        ),
        (
            b"/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`%`*/ /*!50003 TRIGGER shop . tr\n"
            b"AFTER DELETE\nON shop . t FOR EACH ROW x */;;",
            b"/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`%`*/ /*!50003 TRIGGER tr\nAFTER DELETE\nON t FOR EACH ROW x */;;",
        ),
        (b"CREATE TRIGGER tr AFTER INSERT ON shop.t FOR", b"CREATE TRIGGER tr AFTER INSERT ON t FOR"),
        (
            b"CREATE TRIGGER IF NOT EXISTS shop.tr AFTER INSERT ON t FOR",
            b"CREATE TRIGGER IF NOT EXISTS tr AFTER INSERT ON t FOR",
        ),
        (
            b"CREATE DEFINER=`a`@`b` PROCEDURE shop.p()\nBEGIN INSERT INTO shop.t VALUES (1); END",
            b"CREATE DEFINER=`a`@`b` PROCEDURE p()\nBEGIN INSERT INTO shop.t VALUES (1); END",
        ),
        (
            b"CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW\n-- CREATE TRIGGER a.b\n"
            b"SET @x = 'TRIGGER a.b AFTER INSERT ON c.d'",
            b"CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW\n-- CREATE TRIGGER a.b\n"
            b"SET @x = 'TRIGGER a.b AFTER INSERT ON c.d'",
        ),
    ],
)
def test_heads_name_no_database_and_bodies_stay(typed: bytes, made: bytes) -> None:
    assert in_no_database(b"DELIMITER ;;\n" + typed + b"\n") == b"DELIMITER ;;\n" + made + b"\n"
