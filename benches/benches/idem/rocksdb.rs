//! RocksDB through its C interface, loaded at run time from the system's package.
//!
//! Not through its crate: that one binds the newest RocksDB, which no distribution has yet, or
//! compiles it, which takes longer than all benches together.

use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Mutex;
use std::time::Duration;

use crate::Error;
use crate::turns::{Contender, Key, Load, Times, VALUE, locked, on_threads, threads};

pub(crate) const NAME: &str = "rocksdb, WAL synced";

/// What the packages of Debian 12, Ubuntu 24.04 and Debian 13 call it; the first one is what any
/// package for developers adds.
const LIBRARIES: [&CStr; 4] = [
    c"librocksdb.so",
    c"librocksdb.so.7.8",
    c"librocksdb.so.8.9",
    c"librocksdb.so.9.10",
];

/// Callers who look at keys of the same stripe and write them take turns; syncs are not under it.
const STRIPES: usize = 256;

type Object = *mut c_void;
type Message = *mut *mut c_char;

/// The functions that are called, as rocksdb/c.h declares them.
struct Api {
    options_create: unsafe extern "C" fn() -> Object,
    options_set_create_if_missing: unsafe extern "C" fn(Object, c_uchar),
    open: unsafe extern "C" fn(Object, *const c_char, Message) -> Object,
    close: unsafe extern "C" fn(Object),
    read_options_create: unsafe extern "C" fn() -> Object,
    write_options_create: unsafe extern "C" fn() -> Object,
    write_options_set_sync: unsafe extern "C" fn(Object, c_uchar),
    get: unsafe extern "C" fn(
        Object,
        Object,
        *const c_char,
        usize,
        *mut usize,
        Message,
    ) -> *mut c_char,
    put: unsafe extern "C" fn(Object, Object, *const c_char, usize, *const c_char, usize, Message),
    free: unsafe extern "C" fn(Object),
}

impl Api {
    fn load() -> Result<Self, Error> {
        let library = LIBRARIES.iter().find_map(|name| library(name));
        let library = library.ok_or("no librocksdb; on Debian: apt install librocksdb7.8")?;
        macro_rules! function {
            ($name:expr) => {{
                let found = symbol(library, $name)?;
                // SAFETY: a function of this name has the type of the field in every release of
                // the C interface, which only grows.
                unsafe { std::mem::transmute_copy(&found) }
            }};
        }
        Ok(Self {
            options_create: function!(c"rocksdb_options_create"),
            options_set_create_if_missing: function!(c"rocksdb_options_set_create_if_missing"),
            open: function!(c"rocksdb_open"),
            close: function!(c"rocksdb_close"),
            read_options_create: function!(c"rocksdb_readoptions_create"),
            write_options_create: function!(c"rocksdb_writeoptions_create"),
            write_options_set_sync: function!(c"rocksdb_writeoptions_set_sync"),
            get: function!(c"rocksdb_get"),
            put: function!(c"rocksdb_put"),
            free: function!(c"rocksdb_free"),
        })
    }

    /// Takes over the message of a call that failed.
    fn check(&self, message: *mut c_char) -> Result<(), Error> {
        if message.is_null() {
            return Ok(());
        }
        // SAFETY: RocksDB has put a string with an end there.
        let text = unsafe { CStr::from_ptr(message) };
        let text = text.to_string_lossy().into_owned();
        // SAFETY: the string is the caller's to free, and nobody looks at it any more.
        unsafe { (self.free)(message.cast()) };
        Err(text.into())
    }
}

fn library(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: the library's own start is all that runs; it is never unloaded.
    NonNull::new(unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW as c_int) })
}

fn symbol(library: NonNull<c_void>, name: &CStr) -> Result<NonNull<c_void>, Error> {
    // SAFETY: a handle that dlopen has given and that was never closed.
    let found = unsafe { libc::dlsym(library.as_ptr(), name.as_ptr()) };
    NonNull::new(found).ok_or_else(|| format!("librocksdb has no {name:?}").into())
}

pub(crate) struct RocksDb {
    api: Api,
    database: Object,
    read: Object,
    write: Object,
    stripes: Vec<Mutex<()>>,
}

// SAFETY: RocksDB's databases and options may be used from any thread.
unsafe impl Send for RocksDb {}
// SAFETY: and from many at once.
unsafe impl Sync for RocksDb {}

impl RocksDb {
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let api = Api::load()?;
        let dir = CString::new(dir.as_os_str().as_bytes())?;
        // SAFETY: makes an object from nothing.
        let options = unsafe { (api.options_create)() };
        // SAFETY: the options were just made.
        unsafe { (api.options_set_create_if_missing)(options, 1) };
        let mut message = ptr::null_mut();
        // SAFETY: the path has an end, the options were just made, a message is put where asked.
        let database = unsafe { (api.open)(options, dir.as_ptr(), &raw mut message) };
        api.check(message)?;
        // SAFETY: makes an object from nothing.
        let read = unsafe { (api.read_options_create)() };
        // SAFETY: makes an object from nothing.
        let write = unsafe { (api.write_options_create)() };
        // SAFETY: the options were just made.
        unsafe { (api.write_options_set_sync)(write, 1) };
        Ok(Self {
            api,
            database,
            read,
            write,
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
        })
    }

    fn begin(&self, key: &Key) -> Result<(), Error> {
        let _turn = locked(&self.stripes[usize::from(key[0])]);
        let mut message = ptr::null_mut();
        let mut len = 0;
        let bytes = key.as_ptr().cast();
        let (database, read, write) = (self.database, self.read, self.write);
        // SAFETY: the objects live as long as this one; the key has the length that is told; the
        // rest is written to.
        let found = unsafe {
            (self.api.get)(
                database,
                read,
                bytes,
                key.len(),
                &raw mut len,
                &raw mut message,
            )
        };
        self.api.check(message)?;
        assert!(found.is_null(), "the key is new");
        let (value, len) = (VALUE.as_ptr().cast(), VALUE.len());
        // SAFETY: as above, and the value has the length that is told.
        unsafe {
            (self.api.put)(
                database,
                write,
                bytes,
                key.len(),
                value,
                len,
                &raw mut message,
            );
        }
        self.api.check(message)
    }
}

impl Drop for RocksDb {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more. The options are a few bytes that stay.
        unsafe { (self.api.close)(self.database) };
    }
}

impl Contender for RocksDb {
    fn name(&self) -> &'static str {
        NAME
    }

    fn turn(&mut self, load: Load, slice: Duration) -> Times {
        let this = &*self;
        on_threads(threads(load), slice, |key| {
            this.begin(key).expect("looks and writes");
        })
    }
}
