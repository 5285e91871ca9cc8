//! Frames, beats and failure detectors for long-lived connections, sans-IO
