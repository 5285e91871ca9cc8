//! The encoders of a format: buffers that are used again.

/// Defines `Encoder` and `FixedEncoder` for the `Options` of a format, its `Open` containers and its function `encode`.
macro_rules! encoders {
    ($(#[$doc:meta])* Encoder; $(#[$fixed_doc:meta])* FixedEncoder;) => {
        $(#[$doc])*
        #[cfg(feature = "alloc")]
        pub struct Encoder {
            out: $crate::buf::Growing,
            scratch: $crate::order::Usual,
            /// The open containers of an input that is rewritten.
            open: alloc::vec::Vec<Open>,
            options: Options,
        }

        #[cfg(feature = "alloc")]
        impl Encoder {
            /// With the usual [`Options`]. Allocates nothing yet.
            pub fn new() -> Encoder {
                Encoder::with_options(Options::new())
            }

            /// With other [`Options`].
            pub fn with_options(options: impl Into<Options>) -> Encoder {
                Encoder {
                    out: $crate::buf::Growing::new(),
                    scratch: $crate::order::Usual::new(),
                    open: alloc::vec::Vec::new(),
                    options: options.into(),
                }
            }

            /// The canonical bytes of a value, good until the next call.
            ///
            /// # Errors
            ///
            /// As [`to_vec`]. The encoder stays usable.
            pub fn encode<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<&[u8], Error> {
                self.reset();
                encode(value, &mut self.out, &mut self.scratch, self.options)?;
                Ok(self.out.bytes())
            }
        }

        $(#[$fixed_doc])*
        pub struct FixedEncoder<const ENTRIES: usize> {
            scratch: $crate::order::ScratchOf<[$crate::order::Slot; ENTRIES]>,
            options: Options,
        }

        impl<const ENTRIES: usize> FixedEncoder<ENTRIES> {
            /// With the usual [`Options`].
            pub const fn new() -> Self {
                FixedEncoder {
                    scratch: $crate::order::ScratchOf::fixed(),
                    options: Options::new(),
                }
            }

            /// With other [`Options`].
            pub fn with_options(options: impl Into<Options>) -> Self {
                FixedEncoder {
                    options: options.into(),
                    ..FixedEncoder::new()
                }
            }

            /// Writes the canonical bytes of a value into the buffer and returns the part that it fills; the rest of the
            /// buffer is scratch space too.
            ///
            /// # Errors
            ///
            /// As [`to_slice`], and [`Error::is_scratch_full`]. The encoder stays usable.
            pub fn encode<'b, T: Serialize + ?Sized>(
                &mut self,
                value: &T,
                buffer: &'b mut [u8],
            ) -> Result<&'b mut [u8], Error> {
                encode_into(value, buffer, &mut self.scratch, self.options)
            }
        }

        impl<const ENTRIES: usize> Default for FixedEncoder<ENTRIES> {
            fn default() -> Self {
                FixedEncoder::new()
            }
        }

        $crate::encoder::encoders!(debug FixedEncoder<ENTRIES> const ENTRIES: usize);
        #[cfg(feature = "alloc")]
        $crate::encoder::encoders!(debug Encoder);

        #[cfg(feature = "alloc")]
        impl Default for Encoder {
            fn default() -> Encoder {
                Encoder::new()
            }
        }

        #[cfg(feature = "alloc")]
        impl Encoder {
            /// Makes everything ready for another value.
            fn reset(&mut self) {
                self.out.set_len(0);
                let scratch: &mut Scratch = &mut self.scratch;
                scratch.reset();
            }
        }

        fn encode_into<'b, T: Serialize + ?Sized>(
            value: &T,
            buffer: &'b mut [u8],
            scratch: &mut Scratch,
            options: Options,
        ) -> Result<&'b mut [u8], Error> {
            let mut out = $crate::buf::Fixed::new(&mut *buffer);
            scratch.reset();
            encode(value, &mut out, scratch, options)?;
            let len = out.len();
            Ok(&mut buffer[..len])
        }
    };
    (debug $name:ident $(<$generic:ident> $($bound:tt)*)?) => {
        impl<$($($bound)*)?> core::fmt::Debug for $name $(<$generic>)? {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("options", &self.options)
                    .finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use encoders;
