"""The most that placing instances together with their paths can gain, by an integer program
(HiGHS): an upper bound on what any admission could, since a link's delay is what it is without
bursts of others, and segment lists are not limited.

argv: seconds for each instance. stdin: a JSON list of
  {"nodes": n, "arcs": [[from, to, usable_bps, cost, delay_us]],
   "offers": [{"node", "cpu", "memory", "accelerators": {kind: count}}],
   "requests": [{"cpu", "memory", "accelerators", "groups", "gains": [milliwatts or null for each
     offer, without traffic], "max_delay_us", "flows": [{"users": [node], "up", "frame_bps",
     "mw_per_cost"}]}]}
stdout: a JSON list of [gain, upper bound, solved].
"""

import json
import multiprocessing
import sys

import highspy

SECONDS = float(sys.argv[1])


def solve(instance):
    model = highspy.Highs()
    model.setOptionValue("output_flag", False)
    model.setOptionValue("threads", 1)
    model.setOptionValue("time_limit", SECONDS)
    model.setOptionValue("mip_rel_gap", 1e-4)
    arcs, offers = instance["arcs"], instance["offers"]
    nodes = range(instance["nodes"])
    out = {v: [i for i, arc in enumerate(arcs) if arc[0] == v] for v in nodes}
    into = {v: [i for i, arc in enumerate(arcs) if arc[1] == v] for v in nodes}
    load = [[] for _ in arcs]
    at = []
    objective = []
    total = highspy.Highs.qsum
    for request in instance["requests"]:
        here = {}
        for o, gain in enumerate(request["gains"]):
            if gain is not None:
                here[o] = model.addBinary()
                objective.append(gain * here[o])
        at.append(here)
        if not here:
            continue
        placed = total(here.values())
        model.addConstr(placed <= 1)
        for flow in request["flows"]:
            used = [model.addVariable(0, 1) for _ in arcs]
            for user in flow["users"]:
                on = [model.addBinary() for _ in arcs]
                for v in nodes:
                    ends = [here[o] for o in here if offers[o]["node"] == v]
                    leaves = total([on[i] for i in out[v]]) - total([on[i] for i in into[v]])
                    want = (placed if v == user else 0) - (total(ends) if ends else 0)
                    model.addConstr(leaves - (want if flow["up"] else -1 * want) == 0)
                for i in range(len(arcs)):
                    model.addConstr(on[i] - used[i] <= 0)
                if request["max_delay_us"] is not None:
                    spent = total([arc[4] * on[i] for i, arc in enumerate(arcs)])
                    model.addConstr(spent <= request["max_delay_us"])
            for i, arc in enumerate(arcs):
                load[i].append(flow["frame_bps"] / 1e6 * used[i])
                objective.append(-flow["mw_per_cost"] * arc[3] * used[i])
    for i, arc in enumerate(arcs):
        if load[i]:
            model.addConstr(total(load[i]) <= arc[2] / 1e6)
    limit(model, instance, at)
    model.maximize(total(objective))
    info = model.getInfo()
    solved = model.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return [info.objective_function_value, info.mip_dual_bound, solved]


def limit(model, instance, at):
    """Each offer takes no more than it has, and one of each anti-affinity group."""
    total = highspy.Highs.qsum
    for o, offer in enumerate(instance["offers"]):
        here = [(request, x[o]) for request, x in zip(instance["requests"], at) if o in x]
        for key in ("cpu", "memory"):
            terms = [request[key] / offer[key] * x for request, x in here]
            if terms:
                model.addConstr(total(terms) <= 1)
        for kind, count in offer["accelerators"].items():
            terms = [request["accelerators"].get(kind, 0) * x for request, x in here]
            if terms:
                model.addConstr(total(terms) <= count)
        groups = {group for request, _ in here for group in request["groups"]}
        for group in groups:
            model.addConstr(total([x for request, x in here if group in request["groups"]]) <= 1)


if __name__ == "__main__":
    instances = json.load(sys.stdin)
    with multiprocessing.Pool(2) as pool:
        results = []
        for result in pool.imap(solve, instances):
            results.append(result)
            print(f"  exact: {len(results)} of {len(instances)}", file=sys.stderr)
    json.dump(results, sys.stdout)
