"""The data key: made once, kept from others, wrapped when there is something to wrap it with."""

from pathlib import Path

import msgspec
import pytest

from pyswarm.manager.sealing.keys import (
    FILE,
    NO_KEK,
    Kek,
    KeyFileDamaged,
    open_key_file,
    open_sealer,
)
from pyswarm.manager.sealing.sealer import SealBroken, Sealer
from pyswarm.proto.entropy import SYSTEM_ENTROPY, SeededEntropy
from pyswarm.proto.errors import Locked

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
    sealer = open_key_file(tmp_path, first_kek=Kek(KEK)).sealer
    sealer.rotate(SYSTEM_ENTROPY)
    salt = sealer.new_salt(SYSTEM_ENTROPY)
    sealed = sealer.for_file(b"t", salt).seal(0, b"secret", b"")
    for keys in ([KEK], [OTHER_KEK, KEK]):
        assert open_sealer(tmp_path, unlock_keys=keys).for_file(b"t", salt).open(0, sealed, b"") == b"secret"
    for keys in ([], [OTHER_KEK]):
        with pytest.raises(Locked):
            open_sealer(tmp_path, unlock_keys=keys)


def test_an_open_key_file_needs_no_unlock_key_and_takes_any(tmp_path: Path) -> None:
    first = open_sealer(tmp_path).fingerprint
    assert open_sealer(tmp_path, unlock_keys=[KEK]).fingerprint == first


def test_a_file_rewrapped_opens_with_the_new_key_alone_and_remembers_whose_word_it_was(tmp_path: Path) -> None:
    keys = open_key_file(tmp_path, first_kek=Kek(KEK, 7))
    keys.rewrap(Kek(OTHER_KEK, 9))
    with pytest.raises(Locked):
        open_key_file(tmp_path, unlock_keys=[KEK])
    again = open_key_file(tmp_path, unlock_keys=[OTHER_KEK])
    assert again.kek == keys.kek == Kek(OTHER_KEK, 9)
    assert again.sealer.fingerprint == keys.sealer.fingerprint
    again.rewrap(Kek(b"", 11))
    assert open_key_file(tmp_path).kek == Kek(b"", 11)


def test_a_data_key_that_lay_open_is_to_be_exchanged_and_that_outlives_a_crash(tmp_path: Path) -> None:
    keys = open_key_file(tmp_path)
    assert not keys.needs_rotation
    keys.rewrap(Kek(KEK, 3))
    keys = open_key_file(tmp_path, unlock_keys=[KEK])
    assert keys.needs_rotation
    keys.rewrap(Kek(OTHER_KEK, 4))
    keys.sealer.forget_unused([])
    assert keys.needs_rotation, "neither another unlock key nor the loss of an older data key is what it waits for"
    keys.sealer.rotate(SYSTEM_ENTROPY)
    for held in (keys, open_key_file(tmp_path, unlock_keys=[OTHER_KEK])):
        assert not held.needs_rotation
        assert held.kek == Kek(OTHER_KEK, 4)


def test_a_data_key_that_never_lay_open_is_kept(tmp_path: Path) -> None:
    assert not open_key_file(tmp_path, first_kek=Kek(KEK)).needs_rotation


@pytest.mark.parametrize(
    ("candidate", "taken"),
    [
        pytest.param(Kek(OTHER_KEK, 6), True, id="a newer key"),
        pytest.param(Kek(b"", 6), True, id="turned off"),
        pytest.param(Kek(OTHER_KEK, 4), False, id="an older word"),
        pytest.param(Kek(b"", 4), False, id="an older word, from before the lock"),
        pytest.param(Kek(OTHER_KEK, 5), False, id="the same word"),
        pytest.param(Kek(KEK, 6), False, id="a newer word of the same key"),
    ],
)
def test_a_kek_is_superseded_by_a_newer_and_different_one_only(candidate: Kek, taken: bool) -> None:
    assert candidate.supersedes(Kek(KEK, 5)) is taken


def test_what_the_header_says_cannot_be_altered(tmp_path: Path) -> None:
    open_key_file(tmp_path, first_kek=Kek(KEK, 5))
    stored = msgspec.msgpack.decode((tmp_path / FILE).read_bytes())
    (tmp_path / FILE).write_bytes(msgspec.msgpack.encode({**stored, "kek_version": 4}))
    with pytest.raises(Locked):
        open_key_file(tmp_path, unlock_keys=[KEK])


def test_a_key_file_of_before_autolock_is_read(tmp_path: Path) -> None:
    before = {"format": 1, "wrapped": False, "key": b"d" * 32}
    (tmp_path / FILE).write_bytes(msgspec.msgpack.encode(before))
    keys = open_key_file(tmp_path)
    assert (keys.kek, keys.needs_rotation) == (NO_KEK, False)


def test_a_write_that_fails_leaves_file_and_memory_as_they_were(tmp_path: Path) -> None:
    keys = open_key_file(tmp_path, first_kek=Kek(KEK, 5))
    in_the_way = tmp_path / f"{FILE}.new"
    in_the_way.mkdir()
    with pytest.raises(OSError, match="directory"):
        keys.rewrap(Kek(OTHER_KEK, 6))
    in_the_way.rmdir()
    assert keys.kek == open_key_file(tmp_path, unlock_keys=[KEK]).kek == Kek(KEK, 5)


def test_no_key_is_shown(tmp_path: Path) -> None:
    keys = open_key_file(tmp_path, first_kek=Kek(KEK))
    assert "kkk" not in f"{keys!r} {keys.kek!r} {keys.sealer!r}"


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
