//! The stack machine that makes objects of a pickle.

use std::collections::BTreeMap;

use super::{Id, Object, Storage, Tensor, dtype, known};

/// The number at the head of files before the zip format, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Parts of a tuple that is looked at: arguments, sides. A number in a file may name a tuple again and
/// again, so that a long one would make it large.
const MOST_PARTS: usize = 8;

/// The machine. An error of an operation says what is wrong with the pickle.
pub(super) struct Machine<'a> {
    /// What is not yet read.
    pub(super) rest: &'a [u8],
    pub(super) objects: Vec<Object<'a>>,
    stack: Vec<Id>,
    memo: BTreeMap<u32, Id>,
    /// Of the operation that numbers its objects itself.
    puts: u32,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, objects: Vec::new(), stack: Vec::new(), memo: BTreeMap::new(), puts: 0 }
    }

    /// Does one operation; false after the last.
    pub(super) fn step(&mut self) -> Result<bool, String> {
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

    pub(super) fn pop(&mut self) -> Result<Id, String> {
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
                let (pairs, []) = items.as_chunks::<2>() else {
                    return Err("its pickle has a key without a value".into());
                };
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
