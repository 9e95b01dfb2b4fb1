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

mod machine;

use safetensors::Dtype;

use self::machine::Machine;

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

/// Objects of a pickle at most: those of large checkpoints have some ten thousands.
const MOST_OBJECTS: usize = 1 << 18;

/// Reads the pickle that `bytes` begin with; an error says what is wrong with it.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle<'_>, String> {
    let mut machine = Machine::new(bytes);
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
