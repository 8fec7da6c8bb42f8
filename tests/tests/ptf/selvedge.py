"""What a ptf user does with an unmanaged switch: every table by p4runtime-shell, real packets in
and out of its ports by ptf. Ports 1 and 2 are ptf's too.
"""

import time

import p4runtime_sh.shell as sh
from ptf import testutils
from ptf.base_tests import BaseTest

GATEWAY = "02:5e:1f:00:00:01"
# Port, IPv4 and MAC address.
A = (1, "10.0.0.1", "02:00:00:00:00:0a")
B = (2, "10.0.0.2", "02:00:00:00:00:0b")
SLICE = "1"
# Chassis and port by locally assigned names, 120 s, end.
LLDP = bytes.fromhex("0180c200000e 020000000001 88cc 020307 7331 040307 7031 06020078 0000")
LLDP = LLDP.ljust(60, b"\0")

MAPPED = "::ffff:10.9.0.0/112"
# One entry of each table (match, action, parameters), and what a modification changes.
ENTRIES = {
    "backup": ({"port": "1", "backup": "1"}, "repair", {"port": "2", "mac": A[2], "sid1": "7",
               "sid2": "0", "sid3": "0", "sid4": "0"}, {"sid1": "8"}),
    "classifier": ({"protocol": "17", "destination_port": "5000..5010"}, "set_slice",
                   {"slice": "5"}, {"slice": "6"}),
    "delivery": ({"slice": "1", "prefix": MAPPED}, "deliver", {"port": "1", "mac": A[2]},
                 {"mac": B[2]}),
    "endpoint": ({"port": "1", "prefix": MAPPED}, "bind", {"slice_set": "1", "direction": "1",
                 "endpoint": "0"}, {"endpoint": "9"}),
    "endpoint_meter": ({"slice": "1", "direction": "1", "endpoint": "9"}, "meter_endpoint",
                       {"guaranteed_bps": "1000000", "guaranteed_burst_bytes": "3000",
                        "maximum_bps": "2000000", "maximum_burst_bytes": "3000"},
                       {"maximum_bps": "0"}),
    "generation": ({"row": "0"}, "set_generation", {"generation": "7"}, {"generation": "8"}),
    "gtp_session": ({"teid": "9"}, "decapsulate_gtp", {"port": "1", "gnb": "::ffff:192.0.2.2",
                    "ue_ipv4": "167772161", "ue_ipv6": "0", "ue_ipv6_len": "0", "slice_set": "1",
                    "direction": "1", "qfis": "0", "endpoint": "0"}, {"qfis": "512"}),
    "local_sid": ({"sid": "9"}, "node", {}, {}),
    "n3_address": ({"address": "::ffff:192.0.2.1"}, "end_tunnels", {}, {}),
    "next_hop": ({"node": "9"}, "forward", {"port": "1", "mac": A[2], "backup": "0"},
                 {"backup": "1"}),
    # Its action is a set: weights and paths.
    "policy": ({"policy": "9"}, "segments", [(1, [9, 0xe001])],
               [(3, [9, 0xe001]), (1, [8, 9, 0xe001]), (3, [9, 0xe001])]),
    "port": ({"port": "1"}, "fabric", {}, {}),
    "port_queue": ({"port": "1"}, "limit", {"rate_bps": "1000000000", "best_effort_bytes": "1000",
                   "guaranteed_bytes": "2000", "urllc_bytes": "3000"}, {"urllc_bytes": "4000"}),
    "slice_meter": ({"slice": "9", "direction": "1"}, "meter", {"class": "1",
                    "guaranteed_bps": "1000000", "guaranteed_burst_bytes": "3000",
                    "maximum_bps": "0", "maximum_burst_bytes": "0"},
                    {"guaranteed_bps": "2000000"}),
    "slice_route": ({"slice_set": "1", "prefix": MAPPED}, "local", {"slice": "1", "endpoint": "0"},
                    {"slice": "2"}),
}


def entry(table, action, match, priority=None, **parameters):
    row = sh.TableEntry(table)(action=action)
    for name, value in match.items():
        row.match[name] = value
    for name, value in parameters.items():
        row.action[name] = value
    if priority:
        row.priority = priority
    return row


def one_shot(paths, table="policy", action="segments"):
    chosen = sh.Oneshot(table)
    for weight, sids in paths:
        path = sh.Action(action)
        for n in range(6):
            path[f"sid{n + 1}"] = str(sids[n] if n < len(sids) else 0)
        chosen.add(path, weight=weight)
    return chosen


def policy(number, paths):
    row = sh.TableEntry("policy")
    row.match["policy"] = str(number)
    row.oneshot = one_shot(paths)
    return row


def mapped(address, length=32):
    return f"::ffff:{address}/{length + 96}"


def endpoint(port, address, mac, **tag):
    """Binds it to its port, in the default slice, and delivers to it."""
    prefix = mapped(address)
    return [
        entry("endpoint", "bind_tagged" if tag else "bind", {"port": str(port), "prefix": prefix},
              slice_set=SLICE, direction="1", endpoint="0", **tag),
        entry("slice_route", "local", {"slice_set": SLICE, "prefix": prefix}, slice=SLICE,
              endpoint="0"),
        entry("delivery", "deliver", {"slice": SLICE, "prefix": prefix}, port=str(port), mac=mac),
    ]


def counted(counter, index):
    cell = sh.CounterEntry(counter)
    cell.index = index
    [read] = list(cell.read())
    return read.packet_count


class Switch(BaseTest):
    def setUp(self):
        super().setUp()
        self.dataplane = testutils.ptf.dataplane_instance
        # The agent's own: LLDP, router advertisements.
        testutils.add_filter(lambda frame: frame[12:14] != b"\x88\xcc")
        testutils.add_filter(lambda frame: frame[12:14] + frame[54:55] != b"\x86\xdd\x86")
        self.dataplane.flush()
        sh.setup(device_id=1, grpc_addr="127.0.0.1:9559", election_id=(0, 1))
        self.entries = []

    def tearDown(self):
        for row in reversed(self.entries):
            row.delete()
        sh.teardown()
        super().tearDown()

    def insert(self, rows):
        for row in rows:
            row.insert()
            self.entries.append(row)

    def program(self):
        self.insert(entry("port", "access", {"port": str(port)}) for port in (1, 2))
        self.insert(endpoint(*A) + endpoint(*B))


class Fabric(Switch):
    """Port 2 leads to another switch."""

    def first_segment(self, frame):
        """Of the outer destination that a frame from A leaves in."""
        testutils.send_packet(self, 1, frame)
        outer = b""
        # The switch has test packets of its own there.
        while outer[38:42] != b"\x5f\0\0\0":
            poll = self.dataplane.poll(device_number=0, port_number=2, timeout=2)
            assert isinstance(poll, self.dataplane.PollSuccess), "it did not come out"
            outer = poll.packet
        return int.from_bytes(outer[42:44], "big")


def udp(source, destination, to, ttl=64, **more):
    """As a host sends it, or as it comes to one."""
    return testutils.simple_udp_packet(
        eth_src=source[2], eth_dst=to, ip_src=source[1], ip_dst=destination[1], ip_ttl=ttl, **more)


class Tables(Switch):
    """Each table takes an entry, says what it holds, changes it and forgets it."""

    def runTest(self):
        assert sorted(ENTRIES) == sorted(t.preamble.name for t in sh.context.p4info.tables)
        for table, (match, action, parameters, change) in ENTRIES.items():
            if table == "policy":
                row = policy(match["policy"], parameters)
            else:
                priority = 7 if table == "classifier" else None
                row = entry(table, action, match, priority, **parameters)
            row.insert()
            [held] = list(sh.TableEntry(table).read())
            assert held.msg() == row.msg(), f"{table}: {held} is not {row}"
            if table == "policy":
                row.oneshot = one_shot(change)
            else:
                for name, value in change.items():
                    row.action[name] = value
            row.modify()
            [held] = list(sh.TableEntry(table).read())
            assert held.msg() == row.msg(), f"{table}, modified: {held} is not {row}"
            row.delete()
            assert not list(sh.TableEntry(table).read()), table


class Deliver(Switch):
    """A packet goes from an endpoint to another as programmed, and is counted; from an address
    that is not bound to its port it is dropped, and that is counted too."""

    def runTest(self):
        self.program()
        before = [counted("port_rx", 1), counted("port_tx", 2)]
        for n in range(10):
            testutils.send_packet(self, 1, udp(A, B, GATEWAY, udp_sport=4000 + n))
            wanted = udp(A, (0, B[1], GATEWAY), B[2], ttl=63, udp_sport=4000 + n)
            wanted["Ethernet"].src = GATEWAY
            testutils.verify_packet(self, wanted, 2)
        assert [counted("port_rx", 1), counted("port_tx", 2)] == [n + 10 for n in before]

        drops = sum(cell.packet_count for cell in sh.CounterEntry("drops").read())
        stranger = (1, "10.0.0.7", A[2])
        testutils.send_packet(self, 1, udp(stranger, B, GATEWAY))
        testutils.verify_no_packet(self, wanted, 2)
        assert sum(cell.packet_count for cell in sh.CounterEntry("drops").read()) == drops + 1


class Paths(Fabric):
    """Flows are spread over the paths of a policy by weight, and stay where they are; when a path
    comes, those that move go there."""

    def taken(self, flows=128):
        """First segment in the outer destination, by flow, each of which is sent twice."""
        found = {}
        for n in 2 * list(range(flows)):
            sid = self.first_segment(udp(A, B, GATEWAY, udp_sport=4000 + n))
            assert found.setdefault(n, sid) == sid, f"flow {n} went by {found[n]} and {sid}"
        return list(found.values())

    def runTest(self):
        self.insert([entry("port", "access", {"port": "1"}), entry("port", "fabric", {"port": "2"})])
        self.insert([entry("endpoint", "bind", {"port": "1", "prefix": mapped(A[1])},
                           slice_set=SLICE, direction="1", endpoint="0")])
        self.insert([entry("next_hop", "forward", {"node": str(node)}, port="2", mac=B[2],
                           backup="0") for node in (8, 9, 10)])
        row = policy(5, [(3, [8, 0xe001]), (1, [9, 0xe001])])
        self.insert([row, entry("slice_route", "to_policy", {"slice_set": SLICE,
                                "prefix": mapped(B[1])}, slice=SLICE, policy="5",
                                endpoint="0")])
        before = self.taken()
        assert set(before) == {8, 9} and 80 <= before.count(8) <= 112, before

        row.oneshot = one_shot([(3, [8, 0xe001]), (1, [9, 0xe001]), (1, [10, 0xe001])])
        row.modify()
        after = self.taken()
        moved = [new for old, new in zip(before, after) if old != new]
        assert 10 <= after.count(10) <= 50, after
        assert moved.count(10) == after.count(10) and len(moved) <= after.count(10) + 16, moved


class Rules(Fabric):
    """A rule gives packets a DSCP; then it steers them to a policy that no route leads to."""

    def runTest(self):
        self.program()
        match = {"protocol": "17", "slice_set": SLICE}
        self.insert([entry("classifier", "mark", match, priority=7, dscp="46")])
        testutils.send_packet(self, 1, udp(A, B, GATEWAY, ip_dscp=10, ip_ecn=1))
        wanted = udp(A, (0, B[1], GATEWAY), B[2], ttl=63, ip_dscp=46, ip_ecn=1)
        wanted["Ethernet"].src = GATEWAY
        testutils.verify_packet(self, wanted, 2)

        self.insert([entry("next_hop", "forward", {"node": "8"}, port="2", mac=B[2], backup="0"),
                     policy(5, [(1, [8, 0xe001])])])
        entry("classifier", "steer", match, priority=7, policy="5").modify()
        assert self.first_segment(udp(A, B, GATEWAY)) == 8


class Tags(Switch):
    """A rule is about whom the controller has given its tag, and about no tunnel's packets here."""

    def runTest(self):
        self.insert(entry("port", "access", {"port": str(port)}) for port in (1, 2))
        self.insert(endpoint(*A, tag="9") + endpoint(*B))
        self.insert([entry("classifier", "mark", {"endpoint_tag": "9"}, priority=7, dscp="46"),
                     entry("classifier", "drop", {"tunnel_id": "1"}, priority=8)])
        for sender, to, dscp in ((A, B, 46), (B, A, 10)):
            testutils.send_packet(self, sender[0], udp(sender, to, GATEWAY, ip_dscp=10))
            wanted = udp(sender, (0, to[1], GATEWAY), to[2], ttl=63, ip_dscp=dscp)
            wanted["Ethernet"].src = GATEWAY
            testutils.verify_packet(self, wanted, to[0])


class Meter(Switch):
    """A slice gets no more than its maximum, of which there is its burst at first."""

    def runTest(self):
        self.program()
        # The packet's 500 bytes of IP, four times; and at 8 kbit/s no more for half a second.
        rates = {"guaranteed_bps": "0", "guaranteed_burst_bytes": "0", "maximum_bps": "8000",
                 "maximum_burst_bytes": "2000"}
        self.insert([entry("slice_meter", "meter", {"slice": SLICE, "direction": "1"},
                           **{"class": "0"}, **rates)])
        for _ in range(10):
            testutils.send_packet(self, 1, udp(A, B, GATEWAY, pktlen=514))
        wanted = udp(A, (0, B[1], GATEWAY), B[2], ttl=63, pktlen=514)
        wanted["Ethernet"].src = GATEWAY
        arrived = testutils.count_matched_packets(self, wanted, 2, timeout=0.3)
        assert arrived == 4, arrived


class Packets(Switch):
    """A client sends a frame out of a port, and hears of LLDP that comes in."""

    def runTest(self):
        frame = bytes(testutils.simple_udp_packet())
        sh.PacketOut(frame, egress_port="2").send()
        testutils.verify_packet(self, frame, 2)
        testutils.verify_no_other_packets(self)

        self.insert([entry("port", "access", {"port": "1"})])
        heard = sh.PacketIn()
        testutils.send_packet(self, 1, LLDP)
        found = []
        deadline = time.monotonic() + 5
        while not found and time.monotonic() < deadline:
            found = [p for p in heard.sniff(timeout=0.2) if p.packet.payload == LLDP]
        assert found, "LLDP did not come in"
        [metadata] = found[0].packet.metadata
        assert (metadata.metadata_id, metadata.value) == (1, b"\x01")
