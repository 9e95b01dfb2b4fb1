//! How often the program asks for memory, beside how much.

// The one trait of allocators is unsafe to implement.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use archrepair::memory::Meter;

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// The meter, with its calls counted.
pub(crate) struct Counted(pub(crate) Meter);

/// Blocks that were allocated or resized so far, on all threads.
pub(crate) fn calls() -> usize {
    CALLS.load(Relaxed)
}

// SAFETY: every call is passed on to the meter unchanged, which keeps the contract of the trait.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract, which is the same for the meter.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above; every block handed out here came from the meter.
        unsafe { self.0.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: as above.
        unsafe { self.0.realloc(block, layout, new_size) }
    }
}
