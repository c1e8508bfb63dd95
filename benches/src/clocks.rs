//! Wall time, and what a thread really had of a processor.

use std::thread;
use std::time::Duration;

/// A thread of this process.
#[derive(Clone, Copy, Debug)]
pub struct Thread(libc::pid_t);

impl Thread {
    /// The calling one.
    pub fn this() -> Self {
        // SAFETY: no arguments, cannot fail.
        Thread(unsafe { libc::gettid() })
    }

    /// The first whose name begins so; the kernel keeps 15 bytes of a name. A thread names itself,
    /// so one that was just made may take a moment to be found.
    pub fn named(name: &str) -> Self {
        let name = &name[..name.len().min(15)];
        let find = |_| {
            thread::park_timeout(Duration::from_millis(1));
            Thread::find(name)
        };
        (0..5_000).find_map(find).expect("no such thread")
    }

    fn find(name: &str) -> Option<Self> {
        let tasks = std::fs::read_dir("/proc/self/task").ok()?;
        tasks.flatten().find_map(|task| {
            let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
            let number = task.file_name().to_str()?.parse().ok()?;
            comm.starts_with(name).then_some(Thread(number))
        })
    }

    /// How long it was on a processor since it began.
    pub fn time(self) -> Duration {
        // The kernel's clock id of a thread: its number, complemented, and CPUCLOCK_PERTHREAD |
        // CPUCLOCK_SCHED.
        let clock = (!self.0 << 3) | 6;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a timespec.
        let result = unsafe { libc::clock_gettime(clock, &mut time) };
        assert_eq!(result, 0, "the thread has ended");
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

/// How often the calling thread was made to give up its processor.
pub fn preemptions() -> i64 {
    // SAFETY: rusage is plain numbers, and `usage` is one.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage.ru_nivcsw
    }
}
