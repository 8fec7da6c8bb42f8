"""What an operator does with p4runtime-shell at an unmanaged switch; ends with 0 if it all goes.

Without an argument the primary client, which starts this file again as a second one ("second")
while it is connected.
"""

import os
import subprocess
import sys
import traceback

import grpc
import p4runtime_sh.shell as sh
from p4runtime_sh.p4runtime import P4RuntimeWriteException

ADDRESS = "127.0.0.1:9559"
TABLES = [
    "backup", "classifier", "delivery", "endpoint", "endpoint_meter", "generation", "gtp_session",
    "local_sid", "n3_address", "next_hop", "policy", "port", "port_queue", "slice_meter",
    "slice_route",
]


def access(port):
    entry = sh.TableEntry("port")(action="access")
    entry.match["port"] = str(port)
    return entry


def count(table):
    return len(list(sh.TableEntry(table).read()))


def refused(entry, wanted):
    try:
        entry.insert()
    except (P4RuntimeWriteException, grpc.RpcError) as error:
        assert wanted in str(error), str(error)
    else:
        raise AssertionError(f"not {wanted}")


def second():
    sh.setup(device_id=1, grpc_addr=ADDRESS, election_id=(0, 1))
    assert count("port") == 1
    refused(access(1), "PERMISSION_DENIED")
    sh.teardown()


def primary():
    sh.setup(device_id=1, grpc_addr=ADDRESS, election_id=(0, 2))
    assert sorted(table.preamble.name for table in sh.context.p4info.tables) == TABLES
    for table in TABLES:
        assert count(table) == 0, table

    port = access(1)
    port.insert()
    assert count("port") == 1
    refused(port, "ALREADY_EXISTS")
    refused(access(200), "INVALID_ARGUMENT")

    rule = sh.TableEntry("classifier")(action="set_slice")
    rule.match["destination"] = "::ffff:10.1.0.0&&&ffff:ffff:ffff:ffff:ffff:ffff:ffff:0"
    rule.match["protocol"] = "17"
    rule.action["slice"] = "5"
    rule.priority = 7
    rule.insert()
    held = list(sh.TableEntry("classifier").read())
    assert len(held) == 1 and held[0].priority == 7
    rule.delete()
    assert count("classifier") == 0

    subprocess.run([sys.executable, __file__, "second"], check=True, timeout=30)

    assert len(list(sh.CounterEntry("drops").read())) == 30
    port.delete()
    assert count("port") == 0
    sh.teardown()


if __name__ == "__main__":
    try:
        second() if sys.argv[1:] == ["second"] else primary()
    except BaseException:
        # The shell's own threads would keep a failed process alive.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
