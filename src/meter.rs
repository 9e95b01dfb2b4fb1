//! Counts the bytes this process allocates, exactly and repeatably.
//!
//! A limit on memory is worth what its measurement is worth. The resident set of a process
//! depends on the allocator, the page size and what the kernel has in mind; the sum of all
//! bytes that were asked for and not yet given back does not. [`Meter`] keeps that sum and its
//! peak. [`process`] reads the kernel's own figures, to be shown beside it.
//!
//! What is counted: the sizes asked for, on every thread. A block that is resized counts once,
//! at its new size, though the system may hold both copies for a moment. Not counted: the
//! allocator's own overhead, stacks, mapped files, and what C libraries and GPU drivers allocate.
//!
//! A [`limit`] makes the sum a promise: what allocates much asks [`reserve`] first, and gets an
//! error with names and numbers where the process would otherwise be killed.
//!
//! The cost of counting is two or three relaxed atomic operations a call, on one cache line that all threads
//! share: nothing beside the work on a tensor, but a reason not to allocate in an inner loop.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

static CURRENT: AtomicUsize = AtomicUsize::new(0);
/// The most since the last mark.
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// The most before it.
static EARLIER: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(NO_LIMIT);

const NO_LIMIT: usize = usize::MAX;

/// The system's allocator, counted. A program installs it; this library never does, since a
/// process has only one:
///
/// ```
/// use archrepair::memory::{Meter, meter};
///
/// #[global_allocator]
/// static METER: Meter = Meter;
///
/// let before = meter::current();
/// let bytes = vec![0u8; 1000];
/// assert!(meter::current() >= before + bytes.len());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter;

/// Sets up the system's allocator for computing step after step, where that is glibc's; a program calls
/// it before its first thread starts.
///
/// All threads allocate from one heap: with a heap for each, what one has freed is of no use to another,
/// and repairs of a ResNet-50 within 192 MiB held 30 MiB more. And the heap keeps what a step frees for
/// the next one, until [`trim_heap`]: by default the pages go back to the system and come again as
/// zeros, which took up to a quarter of a search step.
pub fn set_up_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (setting, value) in [
        (libc::M_ARENA_MAX, 1),
        // Larger blocks come from the system and go back there. This is where glibc's own threshold
        // ends when it moves; setting the other fixes this one at 128 KiB.
        (libc::M_MMAP_THRESHOLD, 32 << 20),
        (libc::M_TRIM_THRESHOLD, libc::c_int::MAX),
    ] {
        // SAFETY: this sets a number in the allocator and touches no block. One that does not know the
        // setting says so and goes on as it was.
        unsafe {
            libc::mallopt(setting, value);
        }
    }
}

/// Gives back to the system what the heap holds free, where that is glibc's; for the end of a phase.
pub fn trim_heap() {
    // SAFETY: the allocator gives back pages of which it knows that nothing lies there.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes allocated and not yet freed; 0 when no [`Meter`] is installed.
#[must_use]
pub fn current() -> usize {
    CURRENT.load(Relaxed)
}

/// The most bytes that were allocated at once since the start or the last [`reset_peak`].
#[must_use]
pub fn peak() -> usize {
    PEAK.load(Relaxed).max(EARLIER.load(Relaxed))
}

/// Ends a phase: the most bytes that were allocated at once since the mark before, the start or the
/// last [`reset_peak`]. [`peak`] goes on over all phases.
///
/// # Examples
///
/// ```
/// use archrepair::memory::{Meter, meter};
///
/// #[global_allocator]
/// static METER: Meter = Meter;
///
/// meter::mark();
/// drop(vec![0u8; 2000]);
/// let first = meter::mark();
/// drop(vec![0u8; 1000]);
/// assert_eq!(first - meter::mark(), 1000);
/// assert!(meter::peak() >= first);
/// ```
pub fn mark() -> usize {
    let peak = PEAK.swap(current(), Relaxed);
    EARLIER.fetch_max(peak, Relaxed);
    peak
}

/// Forgets earlier peaks: [`peak`] now starts at [`current`].
///
/// One mark serves the whole process: two measurements at once would see each other's bytes.
pub fn reset_peak() {
    EARLIER.store(0, Relaxed);
    PEAK.store(current(), Relaxed);
}

/// Limits the bytes of the process until the guard is dropped; then the limit before holds again.
///
/// One limit serves the whole process. Guards are dropped in the reverse order of their making.
///
/// # Examples
///
/// ```
/// use archrepair::memory::meter;
///
/// let guard = meter::limit(1000);
/// let error = meter::reserve("a picture", 1 << 20).unwrap_err();
/// assert_eq!(error.code(), 29);
/// drop(guard);
/// assert!(meter::reserve("a picture", 1 << 20).is_ok());
/// ```
#[must_use = "the limit ends when the guard is dropped"]
pub fn limit(bytes: usize) -> LimitGuard {
    LimitGuard { before: LIMIT.swap(bytes, Relaxed) }
}

/// Ends its [`limit`] when dropped.
#[derive(Debug)]
pub struct LimitGuard {
    before: usize,
}

impl Drop for LimitGuard {
    fn drop(&mut self) {
        LIMIT.store(self.before, Relaxed);
    }
}

/// Fails when `bytes` more for `what` would pass the limit. Allocate right after it: nothing is
/// set aside, so two threads that ask at once may both be allowed.
///
/// Without a limit it costs one relaxed load.
///
/// # Errors
///
/// [`Error::Memory`] when the bytes in use and these are more than the limit.
pub fn reserve(what: &str, bytes: usize) -> Result<()> {
    let limit = LIMIT.load(Relaxed);
    if limit == NO_LIMIT {
        return Ok(());
    }
    let in_use = current();
    if in_use.saturating_add(bytes) <= limit {
        return Ok(());
    }
    Err(Error::Memory { what: what.into(), need: bytes, limit, in_use })
}

fn add(bytes: usize) {
    let now = CURRENT.fetch_add(bytes, Relaxed) + bytes;
    // Reading first keeps the common case, no new peak, free of a second write.
    if now > PEAK.load(Relaxed) {
        PEAK.fetch_max(now, Relaxed);
    }
}

fn subtract(bytes: usize) {
    CURRENT.fetch_sub(bytes, Relaxed);
}

// SAFETY: every call is passed on to `System` unchanged, which keeps the contract of the trait;
// the counting beside it neither allocates nor panics.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is the same for `System`.
        let block = unsafe { System.alloc(layout) };
        if !block.is_null() {
            add(layout.size());
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, the same for `System`.
        let block = unsafe { System.alloc_zeroed(layout) };
        if !block.is_null() {
            add(layout.size());
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: every block handed out here came from `System` with this layout.
        unsafe { System.dealloc(block, layout) };
        subtract(layout.size());
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the block came from `System` with this layout; the caller checked `new_size`.
        let moved = unsafe { System.realloc(block, layout, new_size) };
        if moved.is_null() {
            return moved; // the old block is still there and still counted
        }
        if new_size >= layout.size() {
            add(new_size - layout.size());
        } else {
            subtract(layout.size() - new_size);
        }
        moved
    }
}

/// What the kernel says about the memory of this process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMemory {
    /// Most bytes that were resident at once since the process started (`VmHWM`).
    pub vm_hwm: usize,
    /// Resident bytes that no file holds: heap and stacks (`RssAnon`).
    pub rss_anon: usize,
    /// Resident bytes of mapped files, which the kernel can drop at any time when they are
    /// clean: mapped weights and the program itself (`RssFile`).
    pub rss_file: usize,
}

/// The memory of this process as the kernel counts it; `None` where there is no Linux `/proc`.
#[must_use]
pub fn process() -> Option<ProcessMemory> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Reads lines such as `VmHWM:      1234 kB`.
fn parse(status: &str) -> Option<ProcessMemory> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: usize = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    Some(ProcessMemory { vm_hwm: bytes("VmHWM")?, rss_anon: bytes("RssAnon")?, rss_file: bytes("RssFile")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_status_file_are_read_in_bytes() {
        let status =
            "Name:\tx\nVmPeak:\t   99 kB\nVmHWM:\t    20 kB\nRssAnon:\t      3 kB\nRssFile:\t    4 kB\n";
        let want = ProcessMemory { vm_hwm: 20 << 10, rss_anon: 3 << 10, rss_file: 4 << 10 };
        assert_eq!(parse(status), Some(want));
    }

    #[test]
    fn a_status_file_without_the_lines_or_with_others_gives_nothing() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("VmHWM:\t20 kB\nRssAnon:\t3 kB\n"), None);
        assert_eq!(parse("VmHWM:\t20 MB\nRssAnon:\t3 kB\nRssFile:\t4 kB\n"), None);
        let huge = format!("VmHWM:\t{} kB\nRssAnon:\t3 kB\nRssFile:\t4 kB\n", usize::MAX);
        assert_eq!(parse(&huge), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_been_as_large_as_it_is() {
        let now = process().unwrap();
        assert!(now.rss_anon > 0);
        assert!(now.rss_file > 0);
        assert!(now.vm_hwm >= now.rss_anon);
    }
}
