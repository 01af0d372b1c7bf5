"""Addresses and rules, as values."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.proto.errors import ResourceExhausted
from pyswarm.worker.network.ipam import claim, gateway_of
from pyswarm.worker.network.plan import Published, hardware_address_of, host_link, ruleset

SUBNET = ipaddress.IPv4Network("172.30.0.0/16")


@given(st.sets(st.integers(2, 60)))
def test_the_lowest_free_address_is_claimed(taken):
    used = {f"t{n}": str(SUBNET.network_address + n) for n in taken}
    expected = next(n for n in range(2, 100) if n not in taken)
    assert claim(SUBNET, used) == str(SUBNET.network_address + expected)


def test_a_full_subnet_says_so():
    small = ipaddress.IPv4Network("10.0.0.0/29")
    used = [str(small.network_address + n) for n in range(2, 7)]
    with pytest.raises(ResourceExhausted, match="subnet"):
        claim(small, used)
    assert gateway_of(small) == "10.0.0.1"


def test_one_task_gets_the_port_and_several_share_it_in_turn():
    one = ruleset("172.30.0.0/16", [Published("tcp", 8080, "172.30.0.2", 80)])
    assert one.count("tcp dport 8080 dnat ip to 172.30.0.2:80") == 2, "for others, and for the machine itself"
    two = ruleset("172.30.0.0/16", [Published("tcp", 8080, "172.30.0.3", 80), Published("tcp", 8080, "172.30.0.2", 80)])
    assert "numgen inc mod 2 map { 0 : 172.30.0.2 . 80, 1 : 172.30.0.3 . 80 }" in two


def test_the_same_ports_make_the_same_rules_in_any_order():
    ports = [Published("udp", 53, "172.30.0.4", 53), Published("tcp", 80, "172.30.0.2", 80)]
    assert ruleset("s", ports) == ruleset("s", reversed(ports))


def test_names_fit_the_kernel_and_addresses_stay():
    assert len(host_link("a" * 25)) <= 15
    assert hardware_address_of("172.30.0.1") == "02:42:ac:1e:00:01"
