;; Changes the first packet's first byte, then traps: what was half done must not get out.
(module
  (memory (export "memory") 1)
  (func (export "hook_abi") (result i32) (i32.const 1))
  (func (export "hook_init") (param i32 i32) (result i32) (i32.const 0))
  (func (export "hook_batch") (param $descriptors i32) (param i32) (result i32)
    (i32.store8 (i32.load (local.get $descriptors)) (i32.const 0xff))
    (unreachable))
  (func (export "hook_quiesce")))
