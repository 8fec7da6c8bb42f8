;; Wants more memory than it is given, and does not go on without.
(module
  (memory (export "memory") 1)
  (func (export "hook_abi") (result i32) (i32.const 1))
  (func (export "hook_init") (param i32 i32) (result i32)
    (if (i32.eq (memory.grow (i32.const 60000)) (i32.const -1)) (then (return (i32.const 12))))
    (i32.const 0))
  (func (export "hook_batch") (param i32 i32) (result i32) (i32.const 0))
  (func (export "hook_quiesce")))
