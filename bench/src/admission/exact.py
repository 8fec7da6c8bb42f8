"""The most slices that can be admitted at once, by an integer program (HiGHS).

stdin: a JSON list of {"nodes": n, "arcs": [[from, to, capacity]], "requests": [[[from, to, rate], ...]]};
each request is all of its flows or none, each flow on one path.
stdout: a JSON list of [accepted, bound, solved].
"""

import json
import sys

import highspy

SECONDS = float(sys.argv[1])


def solve(instance):
    model = highspy.Highs()
    model.setOptionValue("output_flag", False)
    model.setOptionValue("time_limit", SECONDS)
    accept = [model.addBinary() for _ in instance["requests"]]
    arcs = instance["arcs"]
    load = [0 for _ in arcs]
    for request, accepted in zip(instance["requests"], accept):
        for source, target, rate in request:
            flow = [model.addBinary() for _ in arcs]
            for node in range(instance["nodes"]):
                out = sum(f for f, (a, _, _) in zip(flow, arcs) if a == node)
                into = sum(f for f, (_, b, _) in zip(flow, arcs) if b == node)
                net = accepted if node == source else -accepted if node == target else 0 * accepted
                model.addConstr(out - into == net)
            load = [l + rate * f for l, f in zip(load, flow)]
    for (_, _, capacity), total in zip(arcs, load):
        model.addConstr(total <= capacity)
    model.maximize(sum(accept))
    info = model.getInfo()
    solved = model.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return [info.objective_function_value, info.mip_dual_bound, solved]


json.dump([solve(instance) for instance in json.load(sys.stdin)], sys.stdout)
