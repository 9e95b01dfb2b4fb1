//! Pickles as PyTorch writes them, read as data.
//!
//! A pickle is a program for a stack machine, and Python's machine may call any function the
//! program names. This one calls none. It knows the operations that numbers, strings, tuples, lists
//! and dictionaries are made of; the few names that tensors are made with, it turns into values of
//! its own; any other name is an error that says it.
//!
//! 1. Objects lie in one list and refer to each other by index, as a memo may name an object that
//!    is filled later. Nothing here recurses.
//! 2. An operation makes one object at most, and strings stay in the file: memory is bounded by the
//!    length of the file.

use std::collections::BTreeMap;

use safetensors::Dtype;

/// Index of an object.
type Id = usize;

/// What a pickle can hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object<'a> {
    /// Keys and values in order.
    Dict(Vec<(Id, Id)>),
    /// A name of a module and of something in it.
    Global(&'a str, &'a str),
    Int(i64),
    List(Vec<Id>),
    /// `None`, a truth value, a float: nothing tensors are made of.
    Plain,
    /// The number that begins the old format.
    Magic,
    Mark,
    Storage(Storage<'a>),
    Str(&'a str),
    Tensor(Tensor<'a>),
    Tuple(Vec<Id>),
}

/// Numbers in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Storage<'a> {
    pub(super) dtype: Dtype,
    /// Names its bytes in the file.
    pub(super) key: &'a str,
    /// How many numbers.
    pub(super) len: usize,
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor<'a> {
    pub(super) storage: Storage<'a>,
    /// Numbers before the first.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) objects: Vec<Object<'a>>,
    pub(super) root: Id,
    /// What follows it.
    pub(super) rest: &'a [u8],
}

/// The number at the head of files before the zip format, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Operations of all pickles here at most: those of checkpoints have some thousands.
const MOST_OBJECTS: usize = 1 << 22;

/// Parts of a tuple that is looked at: arguments, sides. A number in a file may name a tuple again and
/// again, so that a long one would make it large.
const MOST_PARTS: usize = 8;

/// Reads the pickle that `bytes` begin with; an error says what is wrong with it.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle<'_>, String> {
    let mut machine =
        Machine { rest: bytes, objects: Vec::new(), stack: Vec::new(), memo: BTreeMap::new(), puts: 0 };
    while machine.step()? {
        if machine.objects.len() > MOST_OBJECTS {
            return Err(format!("its pickle makes over {MOST_OBJECTS} objects"));
        }
    }
    let root = machine.pop()?;
    Ok(Pickle { objects: machine.objects, root, rest: machine.rest })
}

impl<'a> Pickle<'a> {
    /// The entries of the dictionary `id` whose keys are strings.
    pub(super) fn entries(&self, id: Id) -> Option<impl Iterator<Item = (&'a str, Id)> + '_> {
        let Object::Dict(entries) = &self.objects[id] else { return None };
        Some(entries.iter().filter_map(|&(key, value)| match self.objects[key] {
            Object::Str(key) => Some((key, value)),
            _ => None,
        }))
    }
}

struct Machine<'a> {
    rest: &'a [u8],
    objects: Vec<Object<'a>>,
    stack: Vec<Id>,
    memo: BTreeMap<u32, Id>,
    /// Of the operation that numbers its objects itself.
    puts: u32,
}

impl<'a> Machine<'a> {
    /// Does one operation; false after the last.
    fn step(&mut self) -> Result<bool, String> {
        let [code] = self.take()?;
        match code {
            b'.' => return Ok(false),
            0x80 => drop(self.take::<1>()?),
            0x95 => drop(self.take::<8>()?),
            b'(' => self.push(Object::Mark),
            b')' => self.push(Object::Tuple(Vec::new())),
            b'}' => self.push(Object::Dict(Vec::new())),
            b']' => self.push(Object::List(Vec::new())),
            b'N' | 0x88 | 0x89 => self.push(Object::Plain),
            b'G' => {
                self.take::<8>()?;
                self.push(Object::Plain);
            }
            b'J' => {
                let int = i32::from_le_bytes(self.take()?);
                self.push(Object::Int(int.into()));
            }
            b'K' => {
                let [int] = self.take()?;
                self.push(Object::Int(int.into()));
            }
            b'M' => {
                let int = u16::from_le_bytes(self.take()?);
                self.push(Object::Int(int.into()));
            }
            0x8a => self.long()?,
            b'X' | 0x8c | b'c' | 0x93 => self.text(code)?,
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo(code)?,
            b't' | 0x85..=0x87 => self.tuple(code)?,
            b's' | b'u' | b'a' | b'e' => self.fill(code)?,
            b'b' => drop(self.pop()?), // attributes, such as the versions of modules
            b'Q' => self.persistent()?,
            b'R' => self.reduce()?,
            other => {
                return Err(format!("its pickle has the operation {other:#04x}, which no state dict needs"));
            }
        }
        Ok(true)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or("its pickle is cut short")?;
        self.rest = rest;
        Ok(*taken)
    }

    fn bytes(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or("its pickle is cut short")?;
        self.rest = rest;
        Ok(taken)
    }

    fn str(&mut self, n: usize) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes(n)?)
            .map_err(|error| format!("a name in its pickle is no UTF-8: {error}"))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let end = self.rest.iter().position(|&byte| byte == b'\n').ok_or("its pickle is cut short")?;
        let line = self.str(end)?;
        self.bytes(1)?;
        Ok(line)
    }

    fn push(&mut self, object: Object<'a>) {
        self.stack.push(self.objects.len());
        self.objects.push(object);
    }

    fn pop(&mut self) -> Result<Id, String> {
        self.stack.pop().ok_or_else(|| "its pickle takes more than it has".into())
    }

    /// All objects above the last mark, which goes too.
    fn marked(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.stack.iter().rposition(|&id| self.objects[id] == Object::Mark);
        let items = self.stack.split_off(mark.ok_or("its pickle misses a mark")? + 1);
        self.stack.pop();
        Ok(items)
    }

    /// An integer of any length: one that fits, or the number at the head of old files.
    fn long(&mut self) -> Result<(), String> {
        let [n] = self.take()?;
        let bytes = self.bytes(n.into())?;
        if bytes == MAGIC {
            self.push(Object::Magic);
            return Ok(());
        }
        let sign = if bytes.last().is_some_and(|&byte| byte >= 0x80) { 0xFF } else { 0 };
        let mut wide = [sign; 8];
        wide.get_mut(..bytes.len())
            .ok_or("its pickle has an integer of over 8 bytes")?
            .copy_from_slice(bytes);
        self.push(Object::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn text(&mut self, code: u8) -> Result<(), String> {
        let object = match code {
            b'X' => {
                let n = u32::from_le_bytes(self.take()?);
                Object::Str(self.str(usize::try_from(n).map_err(|error| error.to_string())?)?)
            }
            0x8c => {
                let [n] = self.take()?;
                Object::Str(self.str(n.into())?)
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                known(module, name)?
            }
            _ => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.objects[module], &self.objects[name]) {
                    (Object::Str(module), Object::Str(name)) => known(module, name)?,
                    _ => return Err("its pickle has a name that is no string".into()),
                }
            }
        };
        self.push(object);
        Ok(())
    }

    fn memo(&mut self, code: u8) -> Result<(), String> {
        let index = match code {
            b'q' | b'h' => self.take::<1>()?[0].into(),
            b'r' | b'j' => u32::from_le_bytes(self.take()?),
            _ => self.puts,
        };
        if matches!(code, b'h' | b'j') {
            let id = self.memo.get(&index).ok_or("its pickle recalls what it did not keep")?;
            self.stack.push(*id);
            return Ok(());
        }
        self.puts = self.puts.saturating_add(1);
        let top = self.stack.last().ok_or("its pickle keeps what it does not have")?;
        self.memo.insert(index, *top);
        Ok(())
    }

    fn tuple(&mut self, code: u8) -> Result<(), String> {
        let items = match code {
            b't' => self.marked()?,
            _ => {
                let n = usize::from(code - 0x84);
                let start = self.stack.len().checked_sub(n).ok_or("its pickle takes more than it has")?;
                self.stack.split_off(start)
            }
        };
        self.push(Object::Tuple(items));
        Ok(())
    }

    /// Adds items to the list, or entries to the dictionary, below them.
    fn fill(&mut self, code: u8) -> Result<(), String> {
        let items = match code {
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            b'a' => vec![self.pop()?],
            _ => self.marked()?,
        };
        let &target = self.stack.last().ok_or("its pickle fills nothing")?;
        match &mut self.objects[target] {
            Object::Dict(entries) if matches!(code, b's' | b'u') => {
                let (pairs, _) = items.as_chunks::<2>();
                entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
            }
            Object::List(list) if matches!(code, b'a' | b'e') => list.extend(items),
            _ => return Err("its pickle fills what is no list or dictionary".into()),
        }
        Ok(())
    }

    /// `("storage", type, key, place, length)`, and in old files a view, which is none here.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let parts = self.parts(id);
        let [
            Object::Str("storage"),
            Object::Global("torch", name),
            Object::Str(key),
            Object::Str(_),
            Object::Int(len),
            view @ ..,
        ] = parts.as_slice()
        else {
            return Err("its pickle names numbers in another way than torch does".into());
        };
        if !matches!(view, [] | [Object::Plain]) {
            return Err("its numbers are views of other numbers; save it again with a newer torch".into());
        }
        let dtype = dtype(name).ok_or_else(|| format!("its numbers are of the type torch.{name}"))?;
        let len = usize::try_from(*len).map_err(|_| format!("{len} numbers"))?;
        self.push(Object::Storage(Storage { dtype, key, len }));
        Ok(())
    }

    /// What the names that are known make of their arguments.
    fn reduce(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Object::Global(module, name) = self.objects[function] else {
            return Err("its pickle calls what is no name".into());
        };
        let made = match (name, self.parts(arguments).as_slice()) {
            ("OrderedDict", []) => Object::Dict(Vec::new()),
            ("_rebuild_parameter", [Object::Tensor(tensor), ..]) => Object::Tensor(tensor.clone()),
            ("_rebuild_tensor_v2", [Object::Storage(storage), Object::Int(offset), shape, strides, ..]) => {
                let [shape, strides] = [shape, strides].map(|sizes| self.sizes(sizes));
                let offset = usize::try_from(*offset).map_err(|_| format!("a tensor begins at {offset}"))?;
                Object::Tensor(Tensor { storage: *storage, offset, shape: shape?, strides: strides? })
            }
            _ => {
                return Err(format!("its pickle calls {module}.{name} with other arguments than torch does"));
            }
        };
        self.push(made);
        Ok(())
    }

    /// The parts of a tuple, those of a long one left out.
    fn parts(&self, id: Id) -> Vec<&Object<'a>> {
        match &self.objects[id] {
            Object::Tuple(ids) => ids.iter().take(MOST_PARTS).map(|&id| &self.objects[id]).collect(),
            _ => vec![&Object::Mark],
        }
    }

    fn sizes(&self, tuple: &Object) -> Result<Vec<usize>, String> {
        let Object::Tuple(ids) = tuple else { return Err("a tensor's shape is no tuple".into()) };
        if ids.len() > MOST_PARTS {
            return Err(format!("a tensor has {} sides", ids.len()));
        }
        let size = |&id: &Id| match self.objects[id] {
            Object::Int(size) => usize::try_from(size).map_err(|_| format!("a tensor has a side of {size}")),
            _ => Err("a tensor's shape holds something else than integers".into()),
        };
        ids.iter().map(size).collect()
    }
}

/// The name as an object, if it is one that tensors are made with.
fn known<'a>(module: &'a str, name: &'a str) -> Result<Object<'a>, String> {
    match (module, name) {
        ("collections", "OrderedDict") | ("torch._utils", "_rebuild_parameter" | "_rebuild_tensor_v2") => {
            Ok(Object::Global(module, name))
        }
        ("torch", storage) if dtype(storage).is_some() => Ok(Object::Global(module, name)),
        _ => Err(format!(
            "it holds {module}.{name}, and this program runs no code of a file; \
             save the tensors alone, as torch.save(model.state_dict(), ...)"
        )),
    }
}

fn dtype(storage: &str) -> Option<Dtype> {
    Some(match storage {
        "BFloat16Storage" => Dtype::BF16,
        "BoolStorage" => Dtype::BOOL,
        "ByteStorage" => Dtype::U8,
        "CharStorage" => Dtype::I8,
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "IntStorage" => Dtype::I32,
        "LongStorage" => Dtype::I64,
        "ShortStorage" => Dtype::I16,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(bytes: &[u8]) -> String {
        read(bytes).unwrap_err()
    }

    #[test]
    fn dictionaries_hold_what_was_put_in_even_after_they_were_kept() {
        // {} kept as 0, ("a", 1) put in, the kept one put into it as "b".
        let pickle = read(b"\x80\x02}q\x00X\x01\0\0\0aK\x01sX\x01\0\0\0bh\x00s.after").unwrap();
        assert_eq!(pickle.rest, b"after");
        let entries: Vec<_> = pickle.entries(pickle.root).unwrap().collect();
        assert_eq!(entries.len(), 2);
        assert_eq!(pickle.objects[entries[0].1], Object::Int(1));
        assert_eq!(entries[1], ("b", pickle.root));
    }

    #[test]
    fn integers_of_every_length_are_read() {
        let int = |bytes: &'static [u8]| {
            let pickle = read(bytes).unwrap();
            pickle.objects[pickle.root].clone()
        };
        assert_eq!(int(b"J\xff\xff\xff\xff."), Object::Int(-1));
        assert_eq!(int(b"M\x01\x02."), Object::Int(513));
        assert_eq!(int(b"\x8a\x00."), Object::Int(0));
        assert_eq!(int(b"\x8a\x02\x00\xff."), Object::Int(-256));
        assert_eq!(int(b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."), Object::Magic);
        assert_eq!(problem(b"\x8a\x09123456789."), "its pickle has an integer of over 8 bytes");
    }

    #[test]
    fn code_is_named_and_never_run() {
        let want = "it holds os.system, and this program runs no code of a file; \
                    save the tensors alone, as torch.save(model.state_dict(), ...)";
        assert_eq!(problem(b"cos\nsystem\nX\x02\0\0\0ls\x85R."), want);
        assert_eq!(problem(b"\x8c\x02os\x8c\x06system\x93."), want);
        assert_eq!(
            problem(b"ios\nsystem\n."),
            "its pickle has the operation 0x69, which no state dict needs"
        );
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (bytes, want) in [
            (&b""[..], "its pickle is cut short"),
            (b"X\x05\0\0\0ab", "its pickle is cut short"),
            (b".", "its pickle takes more than it has"),
            (b"K\x01\x87.", "its pickle takes more than it has"),
            (b"t.", "its pickle misses a mark"),
            (b"h\x07.", "its pickle recalls what it did not keep"),
            (b"q\x07.", "its pickle keeps what it does not have"),
            (b"K\x01K\x02a.", "its pickle fills what is no list or dictionary"),
            (b"K\x01Q.", "its pickle names numbers in another way than torch does"),
            (
                b"ccollections\nOrderedDict\nK\x01\x85R.",
                "its pickle calls collections.OrderedDict with other arguments than torch does",
            ),
            (b"K\x01)R.", "its pickle calls what is no name"),
        ] {
            assert_eq!(problem(bytes), want);
        }
    }
}
