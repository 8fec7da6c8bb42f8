;; Looks for outer headers to forge: fills every byte of memory below the descriptors, except
;; the first 1,500 of each frame (the packets), with 0x5F. If any header were in reach, in a
;; batch or still in a ring, it would be destroyed.
(module
  (memory (export "memory") 1)
  (func (export "hook_abi") (result i32) (i32.const 1))
  (func (export "hook_init") (param i32 i32) (result i32) (i32.const 0))
  (func (export "hook_batch") (param $descriptors i32) (param $n i32) (result i32)
    (local $at i32)
    (local.set $at (i32.const 0))
    (loop $next
      (memory.fill
        (i32.add (local.get $at) (i32.const 1500)) (i32.const 0x5f) (i32.const 2596))
      (local.set $at (i32.add (local.get $at) (i32.const 4096)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $descriptors))))
    (i32.const 0))
  (func (export "hook_quiesce")))
