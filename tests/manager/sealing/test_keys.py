"""The data key: made once, kept from others, wrapped when there is something to wrap it with."""

from pathlib import Path

import pytest

from pyswarm.manager.sealing.keys import FILE, KeyFileDamaged, Locked, open_sealer
from pyswarm.manager.sealing.sealer import SealBroken, Sealer
from pyswarm.proto.entropy import SYSTEM_ENTROPY, SeededEntropy

KEK, OTHER_KEK = b"k" * 32, b"o" * 32


def test_a_manager_keeps_its_data_key(tmp_path: Path) -> None:
    sealer = open_sealer(tmp_path / "sealing")
    salt = sealer.new_salt(SYSTEM_ENTROPY)
    sealed = sealer.for_file(b"t", salt).seal(7, b"secret", b"head")
    assert open_sealer(tmp_path / "sealing").for_file(b"t", salt).open(7, sealed, b"head") == b"secret"


def test_every_manager_has_a_data_key_of_its_own(tmp_path: Path) -> None:
    one, other = open_sealer(tmp_path / "a"), open_sealer(tmp_path / "b")
    salt = one.new_salt(SYSTEM_ENTROPY)
    sealed = one.for_file(b"t", salt).seal(7, b"secret", b"")
    with pytest.raises(SealBroken, match="does not have"):
        other.for_file(b"t", salt)
    with pytest.raises(SealBroken):
        other.for_file(b"t", other.fingerprint + salt[len(other.fingerprint) :]).open(7, sealed, b"")


def test_only_the_owner_can_read_the_key_file(tmp_path: Path) -> None:
    open_sealer(tmp_path / "sealing")
    assert (tmp_path / "sealing").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "sealing" / FILE).stat().st_mode & 0o777 == 0o600


def test_a_wrapped_key_opens_with_its_kek_only(tmp_path: Path) -> None:
    sealer = open_sealer(tmp_path, kek=KEK)
    sealer.rotate(SYSTEM_ENTROPY)
    salt = sealer.new_salt(SYSTEM_ENTROPY)
    sealed = sealer.for_file(b"t", salt).seal(0, b"secret", b"")
    assert open_sealer(tmp_path, kek=KEK).for_file(b"t", salt).open(0, sealed, b"") == b"secret"
    with pytest.raises(Locked):
        open_sealer(tmp_path)
    with pytest.raises(Locked):
        open_sealer(tmp_path, kek=OTHER_KEK)


def test_a_damaged_key_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    open_sealer(tmp_path)
    (tmp_path / FILE).write_bytes(b"\x93\x01")
    with pytest.raises(KeyFileDamaged) as refused:
        open_sealer(tmp_path)
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("number", "header", "salt", "kind"),
    [
        pytest.param(8, b"head", 0, b"t", id="another frame's number"),
        pytest.param(7, b"tail", 0, b"t", id="another header"),
        pytest.param(7, b"head", 1, b"t", id="another file"),
        pytest.param(7, b"head", 0, b"u", id="a file of another kind"),
    ],
)
def test_a_frame_opens_only_where_it_was_sealed(
    tmp_path: Path, number: int, header: bytes, salt: int, kind: bytes
) -> None:
    sealer = open_sealer(tmp_path)
    salts = [sealer.new_salt(SYSTEM_ENTROPY) for _ in range(2)]
    sealed = sealer.for_file(b"t", salts[0]).seal(7, b"secret", b"head")
    with pytest.raises(SealBroken):
        sealer.for_file(kind, salts[salt]).open(number, sealed, header)


def test_new_files_are_sealed_under_the_new_key_and_old_ones_still_open(tmp_path: Path) -> None:
    sealer = open_sealer(tmp_path)
    old = sealer.new_salt(SYSTEM_ENTROPY)
    sealed = sealer.for_file(b"t", old).seal(0, b"before", b"")
    sealer.rotate(SYSTEM_ENTROPY)
    assert sealer.new_salt(SYSTEM_ENTROPY)[:4] != old[:4]
    assert open_sealer(tmp_path).for_file(b"t", old).open(0, sealed, b"") == b"before"


def test_a_key_is_forgotten_when_no_file_and_nobody_at_work_needs_it(tmp_path: Path) -> None:
    sealer = open_sealer(tmp_path)
    salts = []
    for _ in range(3):
        salts.append(sealer.new_salt(SYSTEM_ENTROPY))
        sealer.rotate(SYSTEM_ENTROPY)
    at_work = sealer.for_file(b"t", salts[1])
    sealer.forget_unused([salts[0]])
    assert sealer.key_count == 3
    with pytest.raises(SealBroken):
        sealer.for_file(b"t", salts[2])
    for keeper in (sealer, open_sealer(tmp_path)):
        for needed in salts[:2]:
            keeper.for_file(b"t", needed)
    del at_work
    sealer.forget_unused([])
    assert sealer.key_count == 1
    assert open_sealer(tmp_path).fingerprint == sealer.fingerprint


def test_nothing_is_sealed_under_a_key_that_could_not_be_saved() -> None:
    def full(_: object) -> None:
        raise OSError("no space left on device")

    sealer = Sealer(b"d" * 32, save=full)
    before = sealer.fingerprint
    with pytest.raises(OSError, match="no space"):
        sealer.rotate(SeededEntropy(1))
    assert sealer.fingerprint == before
    assert sealer.key_count == 1


def test_a_sealer_does_not_show_its_key(tmp_path: Path) -> None:
    sealer = open_sealer(tmp_path)
    assert repr(sealer) == "Sealer(…)"
