//! What every bench that compares programs can be told, and how it runs them.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use archrepair::kernels::instructions::Instructions;
use archrepair::memory::meter;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::process::{self, Bounds};

/// Arguments that the benches share.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A Python with what benches/peers/requirements.txt lists
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Threads a program
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
    /// Seconds after which a program is ended
    #[arg(long, default_value_t = 600)]
    patience: u64,
    /// MiB that must be left to the machine, or a program is ended
    #[arg(long, default_value_t = 1024)]
    spare_mib: usize,
    /// Where a child finds its work
    #[arg(long, hide = true)]
    pub(crate) folder: Option<PathBuf>,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// This program as a child whose work lies in `folder`.
    pub(crate) fn own(folder: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("--folder").arg(folder);
        command
    }

    /// The script `name` of benches/peers, whose work lies in `folder`.
    pub(crate) fn script(&self, name: &str, folder: &Path) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(name)).arg(folder);
        command
    }

    /// When a program is ended that is looked at this often.
    pub(crate) fn bounds(&self, every: Duration) -> Bounds {
        Bounds { patience: Duration::from_secs(self.patience), spare: self.spare_mib << 20, every }
    }

    /// As [`process::measure`], on the threads that were asked for.
    pub(crate) fn measure<M: DeserializeOwned>(
        &self,
        mut command: Command,
        (folder, every): (&Path, Duration),
        watch: impl FnMut(u32),
    ) -> Result<M, String> {
        command.arg(format!("--threads={}", self.threads));
        process::set_threads(&mut command, self.threads);
        process::measure(command, folder, self.bounds(every), watch)
    }

    /// What a child does: `run` as the program would, with one heap, and no thread computing besides those
    /// of the pool. What it measured is printed for [`Options::measure`].
    pub(crate) fn answer<M: Serialize + Send, E: Display + Send>(
        &self,
        run: impl FnOnce() -> Result<M, E> + Send,
    ) -> ExitCode {
        choose_instructions();
        meter::set_up_heap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build().unwrap();
        match pool.install(run) {
            Ok(measured) => println!("{}", serde_json::to_string(&measured).unwrap()),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
        ExitCode::SUCCESS
    }
}

/// Computes by the vector instructions that `ARCHREPAIR_ISA` names, as the program does.
pub(crate) fn choose_instructions() {
    if let Ok(name) = std::env::var("ARCHREPAIR_ISA") {
        name.parse::<Instructions>().and_then(Instructions::choose).unwrap();
    }
}
