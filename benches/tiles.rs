//! Counts instructions in the innermost loops of a built program or library, and fails where a tile's sums leave the
//! registers.
//!
//! ```text
//! cargo build --release
//! cargo bench --bench tiles -- target/release/libarchrepair.rlib [--objdump OBJDUMP]
//! ```
//!
//! A *tile* is an innermost loop without calls in which one instruction in six or more is a vector multiply-add. Loops
//! of one set, with the same number of sums, multiply-adds and loads are a row. A tile spills where it writes a vector
//! register to the stack, or reads more of them from there than one for eight multiply-adds: numbers that do not
//! change in a loop may wait there.
//!
//! The library is looked at and not the program, which holds loops of other crates and no names. It needs `objdump`
//! of GNU binutils; of those for another processor, the one for that (`aarch64-linux-gnu-objdump`).

#![allow(clippy::unwrap_used)] // a bench that cannot run has nothing to tidy up

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use archrepair::report::Table;
use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// A library or program with machine code
    file: Option<PathBuf>,
    /// The disassembler
    #[arg(long, default_value = "objdump")]
    objdump: PathBuf,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One line of machine code.
struct Instruction<'a> {
    address: u64,
    name: &'a str,
    operands: &'a str,
}

/// What a tile is told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tile {
    set: &'static str,
    sums: usize,
    products: usize,
    loads: usize,
    spilled: usize,
    reloaded: usize,
}

impl Tile {
    fn spills(&self) -> bool {
        self.spilled > 0 || 8 * self.reloaded > self.products
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(file) = arguments.file else {
        println!("no library given: cargo bench --bench tiles -- target/release/libarchrepair.rlib");
        return ExitCode::SUCCESS;
    };
    let mut command = Command::new(&arguments.objdump);
    command.args(["--disassemble", "--no-show-raw-insn", "--wide"]).arg(&file);
    let output = match command.output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => return failed(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => return failed(&format!("cannot run {}: {error}", arguments.objdump.display())),
    };
    let tiles = tiles(&String::from_utf8_lossy(&output.stdout));
    print(&tiles);
    if tiles.is_empty() {
        return failed(&format!("{} holds no tile", file.display()));
    }
    let spilled: usize = tiles.iter().filter(|(tile, _)| tile.spills()).map(|(_, count)| count).sum();
    if spilled > 0 {
        return failed(&format!("{spilled} tiles spill"));
    }
    println!("no tile spills");
    ExitCode::SUCCESS
}

fn failed(problem: &str) -> ExitCode {
    eprintln!("{problem}");
    ExitCode::FAILURE
}

fn print(tiles: &BTreeMap<Tile, usize>) {
    let mut table =
        Table::new(&["set", "sums", "multiply-adds", "loads", "a load", "to the stack", "from it", "tiles"])
            .legend("sums", "registers that products are added to")
            .legend("a load", "multiply-adds for each load")
            .legend("to the stack", "vector registers written to the stack in each round, and read from it");
    for (tile, count) in tiles {
        let each = tile.products as f64 / tile.loads.max(1) as f64;
        let numbers = [tile.sums, tile.products, tile.loads].map(|n| n.to_string()).into_iter();
        let stack = [tile.spilled, tile.reloaded, *count].map(|n| n.to_string());
        let set = std::iter::once(tile.set.to_owned());
        table.row(set.chain(numbers).chain([format!("{each:.2}")]).chain(stack));
    }
    println!("{table}");
}

/// The tiles of a disassembly, and how often each is there.
fn tiles(text: &str) -> BTreeMap<Tile, usize> {
    let mut all = BTreeMap::new();
    let mut function = Vec::new();
    for line in text.lines() {
        match instruction(line) {
            Some(instruction) => function.push(instruction),
            None => count(&std::mem::take(&mut function), &mut all),
        }
    }
    count(&function, &mut all);
    all
}

/// Address, name and operands of an instruction.
fn instruction(line: &str) -> Option<Instruction<'_>> {
    let (address, rest) = line.trim_start().split_once(":\t")?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let (name, operands) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    Some(Instruction { address, name, operands: operands.trim() })
}

/// Counts the tiles of a function.
fn count(function: &[Instruction], all: &mut BTreeMap<Tile, usize>) {
    let loops: BTreeSet<(usize, usize)> =
        (0..function.len()).filter_map(|end| Some((start(function, end)?, end))).collect();
    for &(start, end) in &loops {
        let is_within = |&(s, e): &(usize, usize)| (s, e) != (start, end) && start <= s && e <= end;
        if loops.iter().any(is_within) {
            continue;
        }
        if let Some(tile) = tile(&function[start..=end]) {
            *all.entry(tile).or_default() += 1;
        }
    }
}

/// Where a jump backward leads to.
fn start(function: &[Instruction], end: usize) -> Option<usize> {
    let jump = &function[end];
    let is_jump = jump.name.starts_with('j') || jump.name.starts_with("b.") || jump.name.starts_with("cb");
    let target = jump.operands.rsplit(", ").next()?.split(' ').next()?;
    let target = is_jump.then(|| u64::from_str_radix(target.trim_start_matches("0x"), 16).ok())??;
    let at = function.partition_point(|of| of.address < target);
    (at <= end && function.get(at)?.address == target).then_some(at)
}

/// What the body of a loop is, if it is a tile.
fn tile(body: &[Instruction]) -> Option<Tile> {
    let set = body.iter().find_map(set)?;
    let products: Vec<&Instruction> = body.iter().filter(|of| self::set(of) == Some(set)).collect();
    let calls = body.iter().any(|of| of.name.starts_with("call") || of.name == "bl");
    if calls || products.len() < 4 || 6 * products.len() < body.len() {
        return None;
    }
    // The sum is the last operand for AT&T's order, the first one on Arm.
    let sum = |of: &Instruction| {
        let mut operands = of.operands.split(',');
        let sum = if set == "NEON" { operands.next() } else { operands.next_back() };
        sum.unwrap_or_default().trim().to_owned()
    };
    let is_vector = |of: &Instruction| {
        ["%xmm", "%ymm", "%zmm"].iter().any(|kind| of.operands.contains(kind))
            || of.name.starts_with("ld") && of.operands.starts_with(['q', 'v', '{'])
            || of.name.starts_with("st") && of.operands.starts_with(['q', 'v', '{'])
    };
    let on_stack = |of: &Instruction| of.operands.contains("(%rsp") || of.operands.contains("[sp");
    let writes = |of: &Instruction| of.operands.ends_with(')') || of.name.starts_with("st");
    let memory =
        |of: &&Instruction| is_vector(of) && (of.operands.contains('(') || of.operands.contains('['));
    let of_stack = || body.iter().filter(|of| is_vector(of) && on_stack(of));
    Some(Tile {
        set,
        sums: products.iter().map(|of| sum(of)).collect::<BTreeSet<_>>().len(),
        products: products.len(),
        loads: body.iter().filter(memory).filter(|of| !writes(of)).count(),
        spilled: of_stack().filter(|of| writes(of)).count(),
        reloaded: of_stack().filter(|of| !writes(of)).count(),
    })
}

/// The set of a vector multiply-add.
fn set(of: &Instruction) -> Option<&'static str> {
    let is_x86 = ["vfmadd", "vfnmadd", "vdpbf16ps"].iter().any(|name| of.name.starts_with(name));
    let is_packed = is_x86 && of.name.ends_with("ps");
    if is_packed && of.operands.contains("%zmm") {
        return Some("AVX-512");
    }
    if is_packed && of.operands.contains("%ymm") {
        return Some("AVX2");
    }
    let is_arm = ["fmla", "fmls", "bfdot"].contains(&of.name) && of.operands.contains(".4s");
    is_arm.then_some("NEON")
}
