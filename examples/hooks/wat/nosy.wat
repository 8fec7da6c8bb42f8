;; Wants a file system.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func (param i32 i32 i32 i32) (result i32)))
  (import "selvedge" "counter" (func (param i32 i64)))
  (memory (export "memory") 1)
  (func (export "hook_abi") (result i32) (i32.const 1))
  (func (export "hook_init") (param i32 i32) (result i32) (i32.const 0))
  (func (export "hook_batch") (param i32 i32) (result i32) (i32.const 0))
  (func (export "hook_quiesce"))
  (@custom "selvedge_hook" "{\"abi\":1,\"imports\":[\"counter\"]}"))
