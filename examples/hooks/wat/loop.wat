;; Never returns from a batch.
(module
  (memory (export "memory") 1)
  (func (export "hook_abi") (result i32) (i32.const 1))
  (func (export "hook_init") (param i32 i32) (result i32) (i32.const 0))
  (func (export "hook_batch") (param i32 i32) (result i32)
    (loop $for_ever (br $for_ever))
    (i32.const 0))
  (func (export "hook_quiesce")))
